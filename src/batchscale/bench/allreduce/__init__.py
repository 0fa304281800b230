"""All-reduce on this machine: every algorithm beside the limit of memory, in turn; the choice, timed afresh.

measure    the rounds, from the parent's side     process   what each of the W processes does
rows       which all-reduces are measured         fit       alpha and beta of each from its times
document   the JSON document                      table     the document as text
"""
