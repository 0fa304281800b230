"""From a data set to normalised minibatches: batchscale's feed beside what other libraries' documentation writes.

A step here is a minibatch that is ready to train on. Contenders are processes as everywhere in this room; as they work
ahead, each is stopped (SIGSTOP, with its loader workers) while it is another one's turn.

contenders  their names, and what each needs     sample     images on disk that all read: photographs, or the user's
assignment  what each is told                    process    what each runs: its minibatches, checked and counted
feed        batchscale's                         loaders    the peers'; transforms: the augmentation in their words
measure     the rounds, from the parent's side   document   the JSON document; table prints it
"""
