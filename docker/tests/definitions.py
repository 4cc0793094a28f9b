"""Reads docker/Dockerfile and docker/compose.yaml."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"


@dataclass
class Instruction:
    """One instruction: `RUN`, and what follows it on its line and those continued."""

    name: str
    text: str

    def exec_form(self):
        """Its arguments if it is a JSON array, else None."""
        start = self.text.find("[")
        try:
            return json.loads(self.text[start:]) if start >= 0 else None
        except ValueError:
            return None


@dataclass
class Stage:
    """A `FROM` with what follows it."""

    image: str
    name: str
    instructions: list

    def all(self, name):
        return [it for it in self.instructions if it.name == name]

    def last(self, name):
        return self.all(name)[-1]


def dockerfile():
    """The values of ARG before the first stage, and the stages by name."""
    lines = (DOCKER / "Dockerfile").read_text().splitlines()
    kept = [line for line in lines if not line.lstrip().startswith("#")]
    whole = re.sub(r"\\\n", " ", "\n".join(kept))
    instructions = [Instruction(*line.split(None, 1)) for line in whole.splitlines() if line.strip()]
    args, stages = {}, {}
    stage = None
    for instruction in instructions:
        if instruction.name == "FROM":
            image, _, name = instruction.text.split()
            for arg, value in args.items():
                image = image.replace(f"${{{arg}}}", value)
            stage = stages[name] = Stage(image, name, [])
        elif stage:
            stage.instructions.append(instruction)
        else:
            args.update([instruction.text.split("=", 1)])
    return args, stages


def compose():
    """compose.yaml with its anchors resolved."""
    return yaml.safe_load((DOCKER / "compose.yaml").read_text())


def command_line(service, stage):
    """What a service runs: the image's entrypoint and command unless it has its own, `$$` being a dollar sign."""
    entrypoint = service.get("entrypoint", stage.last("ENTRYPOINT").exec_form())
    return [part.replace("$$", "$") for part in entrypoint + service["command"]]
