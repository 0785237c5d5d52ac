"""Other advisers' rules, written anew from their sources, on the workloads of docs/advice.md.

`python -m tests.performance.advisers` prints what each of them proposes beside ours, as Markdown.
"""
