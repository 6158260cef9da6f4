"""The demo's program: for each number, how many steps of Collatz' rule lead to 1.

It is what any task's program can be: it takes items from one Redis list, pushes results to
another, ends when there is nothing left, and knows nothing of GridCore.
"""

import os

import redis


def steps_to_1(number: int) -> int:
    steps = 0
    while number != 1:
        number = 3 * number + 1 if number % 2 else number // 2
        steps += 1
    return steps


def main() -> None:
    source = redis.Redis.from_url(os.environ["INPUT_REDIS_URL"])
    target = redis.Redis.from_url(os.environ["OUTPUT_REDIS_URL"])
    while taken := source.brpop([os.environ["INPUT_QUEUE"]], timeout=1):
        number = int(taken[1])
        target.lpush(os.environ["OUTPUT_QUEUE"], f"{number} {steps_to_1(number)}")


if __name__ == "__main__":
    main()
