"""Steps two workers into the old claim's deadlock, and asks who holds what on the way."""

import lockmodel

model = lockmodel.model("specs/striped-old-claim.yaml", workers=2, sets={"stripe": 2, "slot": 1})

state = model.initial
for action in model.actions(state):
    print(action)

# An action is chosen by its words, or taken from model.actions(state).
for words in (
    "worker 1: start enqueue",
    "worker 1: lane[0] FOR UPDATE",
    "worker 2: start claim (r=0, c=0), then lane[1] FOR UPDATE",
    "worker 2: lane[1] FOR UPDATE",
):
    state = model.next(state, model.action(state, words))

print("\nafter four steps")
for worker, locks in model.holds(state).items():
    print(f"  {model.workers[worker]} holds {', '.join(map(str, locks))}")
print(f"  waits for: {model.waits_for(state)}")
print(f"  deadlocked: {sorted(model.deadlocked(state))}")

ahead = lockmodel.deadlocks_ahead(model, state)
nearest = ahead.deadlocks[0]
print(f"\na deadlock is {len(nearest.actions)} steps away")
for action in nearest.actions:
    print(f"  {action}")
for member in nearest.members:
    print(f"  {model.workers[member.worker]} ({member.transaction}) will wait for {member.resource}")
