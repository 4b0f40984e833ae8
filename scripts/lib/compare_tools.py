"""What scripts/compare-tools does with files: prompts for both tools, the numbers of a pair, the verdict.

Usage: compare_tools.py prompts FOLDER | pair TOOL FOLDER NUMBER | verdict FOLDER
"""

import json
import math
import pathlib
import random
import statistics
import sys

REQUESTS = 32  # to llama-server
AGREE, NOISY = 0.05, 0.25  # how far a ratio may be from 1; how wide its interval may be
WORDS = "time year way day man thing world life hand part child eye woman place work week case point number".split()
T95 = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 8: 2.31, 9: 2.26}  # two-sided, by degrees


def prompts(folder):
    """The same prompts in the format of each tool, and a tokenizer of one word."""
    rng = random.Random(42)
    texts = [" ".join(rng.choices(WORDS, k=160)) for _ in range(REQUESTS)]
    (folder / "aiperf.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    (folder / "bench.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer/tokenizer.json").write_text(json.dumps({
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"}, "post_processor": None, "decoder": None,
        "model": {"type": "WordLevel", "vocab": {"?": 0}, "unk_token": "?"}}))
    (folder / "tokenizer/tokenizer_config.json").write_text(json.dumps({
        "tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "?"}))


def rows_of(tool, peer, cell):
    """(number, by the other tool, by sluice-bench); both must have seen the same requests succeed."""
    latencies = cell["latencies"]
    if tool == "ghz":
        at = {entry["percentage"]: entry["latency"] / 1e6 for entry in peer["latencyDistribution"]}
        assert peer["count"] == cell["succeeded"] == 400, (peer["statusCodeDistribution"], cell["succeeded"])
        e2e = latencies["e2e_ms"]
        return [("requests/s", peer["rps"], cell["requests_per_s"]),
                ("mean ms", peer["average"] / 1e6, e2e["mean"]["value"]),
                ("p50 ms", at[50], e2e["p50"]["value"]), ("p95 ms", at[95], e2e["p95"]["value"])]
    assert peer["request_count"]["avg"] == cell["succeeded"] == REQUESTS, (peer["request_count"], cell["succeeded"])
    tokens = cell["output_tokens_per_s"] / cell["requests_per_s"]
    theirs = peer["output_sequence_length"]["avg"]
    assert theirs == 16 and abs(tokens - 16) < 0.01, (theirs, tokens)
    return [("requests/s", peer["request_throughput"]["avg"], cell["requests_per_s"]),
            ("TTFT p50 ms", peer["time_to_first_token"]["p50"], latencies["ttft_from_sent_ms"]["p50"]["value"]),
            ("e2e p50 ms", peer["request_latency"]["p50"], latencies["e2e_ms"]["p50"]["value"])]


def pair(tool, folder, number):
    peer = json.loads((folder / "peer.json").read_text())
    (cell,) = json.loads((folder / "bench/report.json").read_text())["cells"]
    rows = rows_of(tool, peer, cell)
    with open(folder / "pairs.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(rows) + "\n")
    print(f"pair {number}: " + ", ".join(f"{name} {tool} {theirs:.2f} sluice-bench {ours:.2f} ({ours / theirs:.3f})"
                                         for name, theirs, ours in rows), flush=True)


def interval(ratios):
    """Geometric mean with Student's 95 % interval over the logarithms."""
    logs = [math.log(ratio) for ratio in ratios]
    mean = statistics.mean(logs)
    half = T95.get(len(logs) - 1, 1.96) * statistics.stdev(logs) / math.sqrt(len(logs)) if len(logs) > 1 else math.inf
    return tuple(math.exp(min(x, 99)) for x in (mean, mean - half, mean + half))


def verdict(folder):
    pairs = [json.loads(line) for line in (folder / "pairs.jsonl").read_text().splitlines()]
    worst = 0
    for i, (name, *_) in enumerate(pairs[0]):
        mean, low, high = interval([row[i][2] / row[i][1] for row in pairs])
        if low > 1 + AGREE or high < 1 - AGREE:
            worst, word = 1, "they DISAGREE"
        elif max(high / mean, mean / low) > 1 + NOISY:
            worst, word = worst or 2, "too noisy to say"
        else:
            word = "they agree"
        print(f"sluice-bench / other, {name}: {mean:.3f} [{low:.3f}, {high:.3f}]: {word}")
    return worst


if __name__ == "__main__":
    command, *rest = sys.argv[1:]
    if command == "prompts":
        prompts(pathlib.Path(rest[0]))
    elif command == "pair":
        pair(rest[0], pathlib.Path(rest[1]), rest[2])
    else:
        sys.exit(verdict(pathlib.Path(rest[0])))
