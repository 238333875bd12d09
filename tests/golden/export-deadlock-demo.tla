------------------------------ MODULE deadlock_demo ------------------------------
(* Exported by lockmodel from deadlock-demo.yaml
   2 workers: worker 1, worker 2

   java -cp tla2tools.jar tlc2.TLC deadlock_demo      (its configuration is deadlock_demo.cfg)

   TLC's distinct states and depth are lockmodel's; its generated states are the transitions and one.
   TLC's own check for deadlock is off: it means that nothing at all can happen. The invariant NoDeadlock also finds workers that are
   stuck for ever while others run. *)
EXTENDS Integers, FiniteSets, TLC
Workers == 1..2
Role == <<"worker", "worker">>
\* The transactions that each role runs.
Runs == ("worker" :> {"pay bob", "pay alice"})

\* Which modes are in each other's way, for each kind of resource: <<held, wanted>>.
Clash == ("row" :> {<<"FOR KEY SHARE", "FOR UPDATE">>, <<"FOR SHARE", "FOR NO KEY UPDATE">>, <<"FOR SHARE", "FOR UPDATE">>, <<"FOR NO KEY UPDATE", "FOR SHARE">>, <<"FOR NO KEY UPDATE", "FOR NO KEY UPDATE">>, <<"FOR NO KEY UPDATE", "FOR UPDATE">>, <<"FOR UPDATE", "FOR KEY SHARE">>, <<"FOR UPDATE", "FOR SHARE">>, <<"FOR UPDATE", "FOR NO KEY UPDATE">>, <<"FOR UPDATE", "FOR UPDATE">>})
\* The locks that are ever held or wanted.
Lock(resource, kind, mode) == [resource |-> resource, kind |-> kind, mode |-> mode]
Locks == <<
  Lock("alice", "row", "FOR UPDATE"),  \* 1
  Lock("bob", "row", "FOR UPDATE")  \* 2
>>

Valuations == {<<>>}

\* Steps: what it does, who can take it, the locks that must be free (or, if refused, of which one must not be), where it leads,
\* and what it does to the shared variables: a function on the valuations in which it is possible.
Unchanged == [v \in Valuations |-> v]
Start(transaction, does, locks, to) ==
  [does |-> does, by |-> transaction, locks |-> locks, refused |-> FALSE, to |-> to, then |-> Unchanged, fault |-> ""]
Acquire(locks, to) ==
  [does |-> "acquire", by |-> "", locks |-> locks, refused |-> FALSE, to |-> to, then |-> Unchanged, fault |-> ""]
Refuse(locks, to) ==
  [does |-> "refuse", by |-> "", locks |-> locks, refused |-> TRUE, to |-> to, then |-> Unchanged, fault |-> ""]
Go(does, to) == [does |-> does, by |-> "", locks |-> {}, refused |-> FALSE, to |-> to, then |-> Unchanged, fault |-> ""]
When(step, valuations) == [step EXCEPT !.then = [v \in valuations |-> v]]
Setting(step, then) == [step EXCEPT !.then = then]
Fault(step, valuations, why) == [step EXCEPT !.then = [v \in valuations |-> v], !.fault = why]
\* Where a worker can be: its status, its transaction, the locks held there, the lock waited for (0: none), its steps.
At(status, transaction, holds, wants, steps) == [status |-> status, transaction |-> transaction,
  holds |-> holds, wants |-> wants, steps |-> steps]
Places == <<
  At("idle", "", {}, 0, {Start("pay bob", "start pay bob", {}, 2), Start("pay alice", "start pay alice", {}, 6)}),  \* 1
  At("running", "pay bob", {}, 1, {Acquire({1}, 3)}),  \* 2
  At("running", "pay bob", {1}, 2, {Acquire({2}, 4)}),  \* 3
  At("running", "pay bob", {1, 2}, 0, {Go("commit", 5)}),  \* 4
  At("committed", "", {}, 0, {Go("recycle", 1)}),  \* 5
  At("running", "pay alice", {}, 2, {Acquire({2}, 7)}),  \* 6
  At("running", "pay alice", {2}, 1, {Acquire({1}, 8)}),  \* 7
  At("running", "pay alice", {1, 2}, 0, {Go("commit", 5)})  \* 8
>>

VARIABLES at, shared
vars == <<at, shared>>

(* What it means *)

Here(w) == Places[at[w]]
\* The locks that are in the way of lock k, if another worker holds them.
Conflicts == [k \in DOMAIN Locks |-> {j \in DOMAIN Locks :
  /\ Locks[j].resource = Locks[k].resource
  /\ <<Locks[j].mode, Locks[k].mode>> \in Clash[Locks[k].kind]}]
\* The workers that make w wait if it asks for lock k.
Blockers(w, k) == {o \in Workers \ {w} : Here(o).holds \cap Conflicts[k] /= {}}
\* Whether w must wait for ever if all in S do.
Hopeless(w, S) == Blockers(w, Here(w).wants) \cap S /= {}
Waiting == {w \in Workers : Here(w).wants /= 0 /\ Blockers(w, Here(w).wants) /= {}}
Running == {w \in Workers : Here(w).status = "running"}

Enabled(w, e) ==
  /\ e.by = "" \/ e.by \in Runs[Role[w]]
  /\ shared \in DOMAIN e.then
  /\ IF e.refused THEN \E k \in e.locks : Blockers(w, k) /= {} ELSE \A k \in e.locks : Blockers(w, k) = {}
Step(w, e) ==
  /\ e.fault = ""
  /\ Enabled(w, e)
  /\ at' = [at EXCEPT ![w] = e.to]
  /\ shared' = e.then[shared]

Init == at = [w \in Workers |-> 1] /\ shared = <<>>
Next == \E w \in Workers : \E e \in Here(w).steps : Step(w, e)
Spec == Init /\ [][Next]_vars

TypeOK == at \in [Workers -> DOMAIN Places] /\ shared \in Valuations
\* Deadlock: some workers each wait, and none of them can go on before another of them does.
NoDeadlock == ~ \E S \in (SUBSET Waiting) \ {{}} : \A w \in S : Hopeless(w, S)
NoGlobalStall == Running /= {} => Running \ Waiting /= {}

\* What traces show: each worker by names instead of numbers.
Named(k) == <<Locks[k].resource, Locks[k].mode>>
InWords == [
  workers |-> [w \in Workers |-> [
    status |-> Here(w).status,
    transaction |-> Here(w).transaction,
    holds |-> {Named(k) : k \in Here(w).holds},
    wants |-> IF Here(w).wants = 0 THEN <<>> ELSE Named(Here(w).wants)]],
  shared |-> shared]
================================================================================
