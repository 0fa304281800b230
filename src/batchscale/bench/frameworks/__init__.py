"""batchscale beside other frameworks: the same net, examples, minibatches and constants, proved before it is timed.

``programs/`` holds one small file a framework, written as its documentation tells users; each runs in an environment of
its own, with what ``programs/protocol.py`` says between it and the parent.
"""
