"""What changes from step to step: the learning rate, the onset of the terms beyond the paper, the average's decay."""

import math
from dataclasses import dataclass

from trainer.settings.run_settings import Settings

_WARM_UP = 10  # steps for which the running average forgets its first weights faster than its decay says, roughly


@dataclass(frozen=True)
class Schedule:
    """The schedule of a training of `total` steps, which count from 0.

    The learning rate and the running average restart at the onset: until then the rate is constant, and afterwards the
    weights from before the onset decay quickly.
    """

    settings: Settings
    total: int

    @property
    def onset(self) -> int:
        """The first step that includes the terms beyond the paper."""
        return math.ceil(self.settings.onset * self.total)

    def terms_on(self, step: int) -> bool:
        """Whether a step includes the terms beyond the paper."""
        return step >= self.onset

    def learning_rate(self, step: int) -> float:
        """Adam's learning rate: constant, or from the onset on half a cosine down to 0."""
        if self.settings.schedule == "constant" or not self.terms_on(step):
            return self.settings.learning_rate
        progress = (step - self.onset) / (self.total - self.onset)
        return self.settings.learning_rate * (1 + math.cos(math.pi * progress)) / 2

    def ema_weight(self, step: int) -> float:
        """The weight of a step's weights in the running average."""
        steps = step - self.onset if self.terms_on(step) else step  # since the average was started
        return 1 - min(self.settings.averaging, (1 + steps) / (_WARM_UP + steps))
