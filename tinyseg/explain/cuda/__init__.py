"""What a CUDA kernel does with memory, thread by thread, run in Python."""
