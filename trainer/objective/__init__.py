"""What training maximises: eqs. 6, 7, 12 and 13, and the terms beyond the paper."""
