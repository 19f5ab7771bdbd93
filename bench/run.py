"""`make bench`: every measurement, one after the other, each with its table and JSON.

run.py [data] [trainer] [alignment] [chat] [estimate] [admission] [operator] [rollout]
"""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "tests")]


def main(chosen: list[str]) -> None:
    """Run the chosen measurements, or all of them."""
    if not chosen or "data" in chosen:
        import data_path

        data_path.main()
    if not chosen or "trainer" in chosen:
        import trainer_pairs

        trainer_pairs.main()
    if not chosen or "alignment" in chosen:
        import alignment_pairs

        alignment_pairs.main()
    if not chosen or "chat" in chosen:
        import chat_rows

        chat_rows.main()
    if not chosen or "estimate" in chosen:
        import estimate_start

        estimate_start.main()
    if not chosen or "admission" in chosen:
        import admission

        admission.main()
    if not chosen or "operator" in chosen:
        import operator_load

        operator_load.main()
    if not chosen or "rollout" in chosen:
        import rollout

        rollout.main()


if __name__ == "__main__":
    main(sys.argv[1:])
