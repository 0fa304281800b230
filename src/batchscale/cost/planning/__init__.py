"""A plan: for each number of devices the best minibatch and algorithm, time to the goal and cost, with intervals."""
