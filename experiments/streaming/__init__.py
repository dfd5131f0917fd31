"""What `task=stream` is made of: sources, a queue, questions, the two threads, the view and the endpoint."""
