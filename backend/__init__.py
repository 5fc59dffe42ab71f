"""The worker: takes requests from the queue, has them evaluated, publishes the results."""
