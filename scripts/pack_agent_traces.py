"""Packs traces of real agents and chats into fate_gym's data files.

    python scripts/pack_agent_traces.py FOLDER

FOLDER has one ``SOURCE.jsonl.xz`` per source, one workflow per line, in the format of
docs/workloads.md. Writes only to ``fate_gym/workloads/data/agent_traces/``: a file per source, and
``record.json`` with origin, licence and counts. The same input gives the same bytes.

Kept: every workflow and call; parents, roles, models, tokens, what is shared, and the gaps of
tools and people. Left out: the times of the provider's calls (``start_s`` except in chats,
``duration_s``, ``ttft_s``), which say nothing about a GPU; notes on how an output was counted
(``output_estimated``, ``output_spread``); ``reasoning_tokens``, which are part of the output.
"""

from __future__ import annotations

import argparse
import json
import lzma
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fate_gym.workloads.agent_traces import RECORD_FILE, SOURCES, data_file, pack

OUTPUT = Path(__file__).parents[1] / "fate_gym" / "workloads" / "data" / "agent_traces"
LEFT_OUT = frozenset(
    ("start_s", "duration_s", "ttft_s", "output_estimated", "output_spread", "reasoning_tokens")
)
KEPT = {"mooncake_conversation": frozenset({"start_s"})}

APACHE, MIT, CC_BY = "Apache-2.0", "MIT", "CC-BY-4.0"
ORIGINS: dict[str, list[dict[str, str]]] = {
    "weka_claude_code": [
        {
            "repository": "https://github.com/callanjfox/kv-cache-tester",
            "commit": "94f6046d",
            "files": "traces/trace_*.json",
            "licence": APACHE,
            "copyright": "2024 Callan Fox",
        }
    ],
    "coding_sessions": [
        {
            "repository": "https://github.com/marot/spotter",
            "commit": "8cc42b0b",
            "files": "test/fixtures/transcripts/**.jsonl",
            "licence": MIT,
            "copyright": "2026 marot",
        },
        {
            "repository": "https://github.com/uw-syfi/TraceLab",
            "commit": "0b8a262b",
            "files": "example_sessions/sanitized/",
            "licence": CC_BY,
            "copyright": "TraceLab (SyFI Lab, University of Washington)",
        },
    ],
    "tau_bench": [
        {
            "repository": "https://github.com/sierra-research/tau-bench",
            "commit": "59a200c6",
            "files": "historical_trajectories/gpt-4o-airline.json",
            "licence": MIT,
            "copyright": "2024 Sierra",
        }
    ],
    "mini_swe": [
        {
            "repository": "https://github.com/LMCache/lmcache-agent-trace",
            "commit": "16a14ada",
            "files": "miniswe/*.jsonl",
            "licence": APACHE,
            "copyright": "the LMCache contributors",
        }
    ],
    "tree_of_thoughts": [
        {
            "repository": "https://github.com/princeton-nlp/tree-of-thought-llm",
            "commit": "ab400345",
            "files": "logs/",
            "licence": MIT,
            "copyright": "2023 Shunyu Yao",
        }
    ],
    "mooncake_conversation": [
        {
            "repository": "https://github.com/kvcache-ai/Mooncake",
            "commit": "3b5a5941",
            "files": "FAST25-release/traces/conversation_trace.jsonl",
            "licence": APACHE,
            "copyright": "the Mooncake authors",
        }
    ],
}


def read(path: Path, source: str) -> list[dict[str, Any]]:
    """Read the workflows of a file, with only the fields that are used."""
    leave = LEFT_OUT - KEPT.get(source, frozenset())
    rows = []
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            del row["source"]  # the name of the file
            row["calls"] = [
                {field: value for field, value in call.items() if field not in leave}
                for call in row["calls"]
            ]
            rows.append(row)
    return rows


def counts(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Count what a source contains; tests recount it from the packed files."""
    llm = [call for row in rows for call in row["calls"] if call["kind"] == "llm"]
    return {
        "workflows": len(rows),
        "llm_calls": len(llm),
        "tool_calls": sum(len(row["calls"]) for row in rows) - len(llm),
        "prompt_tokens": sum(call["prompt_tokens"] for call in llm),
        "shared_tokens": sum(call.get("shared_with", (0, 0))[1] for call in llm),
        "output_tokens": sum(call["output_tokens"] * call.get("samples", 1) for call in llm),
    }


def main() -> None:
    """Pack the traces in the folder given on the command line."""
    parser = argparse.ArgumentParser(description="Pack traces of agents and chats.")
    parser.add_argument("folder", type=Path, help="holds SOURCE.jsonl.xz")
    folder = parser.parse_args().folder
    OUTPUT.mkdir(parents=True, exist_ok=True)
    record = {}
    for source in SOURCES:
        rows = read(folder / f"{source}.jsonl.xz", source)
        data = pack(rows)
        (OUTPUT / data_file(source)).write_bytes(data)
        record[source] = {"origins": ORIGINS[source], **counts(rows)}
        print(f"{source}: {len(rows)} workflows, {len(data)} bytes")
    text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    (OUTPUT / RECORD_FILE).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
