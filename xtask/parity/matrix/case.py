"""What a case is. Imports no framework, so that names can be listed at once."""

from dataclasses import asdict, dataclass, field

import draws

FULL, QUICK, FIXTURE = "full", "quick", "fixture"


@dataclass(frozen=True)
class Subject:
    """What is built, and how it is called."""

    framework: str
    kind: str
    options: dict
    call: dict = field(default_factory=dict)
    module: str | None = None

    @classmethod
    def of_metadata(cls, case):
        return cls(case["framework"], case["kind"], case["options"], case["call"], case.get("module"))

    def metadata(self):
        return {key: value for key, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class Draw:
    """What is special about the numbers."""

    transition_scale: float = 1.0
    own_init: bool = False
    positive: bool = False
    zero_steps: tuple[int, ...] = ()
    zero_channels: int = 0

    @classmethod
    def for_length(cls, length):
        """Long sequences get a memory that is worth their length."""
        return cls(transition_scale=4.0 if length >= 128 else 1.0)


@dataclass(frozen=True)
class Case:
    name: str
    subject: Subject
    length: int
    batch: int
    draw: Draw
    cached: bool = False
    greedy: int = 0
    tier: str = FULL

    @property
    def seed(self):
        return draws.seed_of(self.name)

    def metadata(self):
        return {"name": self.name, **self.subject.metadata(), "seed": self.seed}

    def summary(self):
        return {
            "case": self.name,
            "framework": self.subject.framework,
            "kind": self.subject.kind,
            "quick": self.tier != FULL,
            "fixture": self.tier == FIXTURE,
        }


def name(slug, length, batch):
    return f"{slug}-t{length}-b{batch}"
