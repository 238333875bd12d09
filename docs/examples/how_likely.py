"""How likely is the old claim's deadlock, if each thing that can happen next is as likely as any other?"""

from collections import defaultdict

import lockmodel

STEPS = 20

for stripes in (1, 2, 3, 4):
    model = lockmodel.model("specs/striped-old-claim.yaml", workers=2, sets={"stripe": stripes, "slot": 1})
    graph = lockmodel.state_graph(model)
    chances = {model.initial: 1.0}
    for _ in range(STEPS):
        following = defaultdict(float)
        for state, chance in chances.items():
            ways = [state] if graph.nodes[state]["deadlock"] else [after for _, after in graph.out_edges(state)]
            for after in ways:
                following[after] += chance / len(ways)
        chances = following
    dead = sum(chance for state, chance in chances.items() if graph.nodes[state]["deadlock"])
    print(f"stripes: {stripes}  states: {len(graph):5,}  deadlocked within {STEPS} steps: {dead:6.1%}")

model = lockmodel.model("specs/striped-old-claim.yaml")
order = lockmodel.lock_order_graph(model)
print("\nlanes that are held and wanted:")
for held, wanted, data in order.edges(data=True):
    if held.startswith("lane") and wanted.startswith("lane"):
        print(f"  {held}, then {wanted}: {' and '.join(data['transactions'])} ({', '.join(data['positions'])})")
