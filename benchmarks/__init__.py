"""Speed, measured on the machine at hand: `python -m benchmarks NAME [--json]`.

A benchmark is a module with `run(arguments) -> Result`. Figures are honest before they are fast: padding is never
counted as tokens, compilation is shown and not timed, and each row says what it ran.
"""
