"""What gradients with respect to inputs are multiplied by on their way back.

In half precision the gradient of a confident row would underflow to zero inside the
network, and its search stand still. It is divided out of the result; being a power of
two, it changes no digit in float32.
"""

GRADIENT_SCALE = 2.0**10
