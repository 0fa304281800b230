"""Throughput on this machine, every contender measured in turn with the others in one run.

A contender is one long-lived job of W processes. All jobs are alive at the same time and one runs at any moment:
the parent says "go" to its W processes, they take S steps, report wall and CPU seconds, and block on a pipe
until their next turn. Ratios are medians of ratios within a round, so that whatever else the machine does meets
both sides alike.

    ceiling       forward, backward and update alone, on images in memory; no communication, no feed
    batchscale    the trainer, fast mode; batchscale_exact: exact mode
    peers/        the same training as other libraries' documentation writes it, one file each

    data/         from a data set to minibatches, beside what other libraries' documentation writes
    allreduce/    every all-reduce at every size, beside the limit of memory; the choice for runs to come

    statistics  medians and paired ratios            child      what one process of a contender runs
    assignment  what is trained, for children        contender  W processes of one contender, from the parent's side
    meter       "go" and "done", a child's side      step       the contenders of a step; results and table show them
    turns       whose turn it is, asked to stop      rounds     warming up and measuring; who fails is left out

    documents   what --json prints, declared once    findings   a document as findings, which a page shows
"""
