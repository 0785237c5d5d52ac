"""HTTP/1.1 below the application: connections, heads and answers from memory."""
