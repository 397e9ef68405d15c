"""Speed, measured on the machine at hand: `python -m benchmarks NAME [--json]`.

A benchmark is a module with `run(arguments) -> Result`. Padding is never counted as tokens, compilation is reported
apart and not timed, and each row says what it ran.
"""
