"""What a traced network says of itself.

Its FLOPs, its last layer, which channels belong together, which inputs are row numbers.
"""
