"""The paper's tables and figures as data, the runs they need, and our numbers next to the paper's."""
