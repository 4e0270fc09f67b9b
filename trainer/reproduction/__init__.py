"""The paper's tables and figures as data, the runs they need, and our numbers beside the paper's."""
