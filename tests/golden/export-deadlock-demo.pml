/* Exported by lockmodel from deadlock-demo.yaml
 * 2 workers: worker 1, worker 2
 *
 * Is there a violation?  spin -o1 -o2 -o3 -a model.pml && gcc -O3 -DSAFETY -DNOREDUCE -o pan pan.c && ./pan -E -m1000000
 * The shortest trace:    the same with -DBFS; then spin -t -p model.pml
 * How many states?       the same with spin -DCOUNT: no claim, the smallest states; transitions are stored + matched - 1
 *
 * A label at_17 is the worker's location 17. spin warns that the claim has side effects: its scratch variables, which are 0 again after each look.
 */

#define N 2  /* workers */
#define SET byte
#define me (1 << _pid)
#ifdef COUNT
#define LOCK(lock, bits) unsigned lock : bits
#define TAKE(lock) lock++
#define DROP(lock) lock--
#define ONLY_MINE(lock) (lock == 1)
#define POOL(pool) byte pool
#define TAKE_UNIT(pool) pool++
#define DROP_UNIT(pool) pool--
#define WATCH(statements)
#define MOVE(guard, watched) guard ->
#else
#define LOCK(lock, bits) unsigned lock : N
#define TAKE(lock) lock = lock | me
#define DROP(lock) lock = lock & ~me
#define ONLY_MINE(lock) (lock == me)
#define POOL(pool) byte pool[N]
#define TAKE_UNIT(pool) pool[_pid]++
#define DROP_UNIT(pool) pool[_pid]--
#define TALLY(places) unsigned places : N
#define JOIN(places) places = places | me
#define LEAVE(places) places = places & ~me
#define WATCH(statements) statements
#define MOVE(guard, watched) d_step { guard watched } ->
#endif
#define FREE(lock) (lock == 0)

/* Locks that can be in somebody's way, and how many bits count their holders. */
LOCK(alice_FOR_UPDATE, 1);  /* alice FOR UPDATE */
LOCK(bob_FOR_UPDATE, 1);  /* bob FOR UPDATE */
#ifndef COUNT
/* What each worker waits for: 0 it is not running, 1 it runs and waits for nothing, else one of these. */
#define want_alice_FOR_UPDATE 2  /* alice FOR UPDATE */
#define want_bob_FOR_UPDATE 3  /* bob FOR UPDATE */
byte want[N];
#endif

active [2] proctype worker()
{
end_at_0:  /* idle */
  if
  :: MOVE(true,  WATCH(; want[_pid] = want_alice_FOR_UPDATE)) goto at_1; /* start pay bob */
  :: MOVE(true,  WATCH(; want[_pid] = want_bob_FOR_UPDATE)) goto at_2; /* start pay alice */
  fi;
at_1:  /* pay bob */
  if
  :: d_step { FREE(alice_FOR_UPDATE) -> TAKE(alice_FOR_UPDATE) WATCH(; want[_pid] = want_bob_FOR_UPDATE) } goto at_3; /* alice FOR UPDATE */
  fi;
at_3:  /* pay bob: holds alice FOR UPDATE */
  if
  :: d_step { FREE(bob_FOR_UPDATE) -> TAKE(bob_FOR_UPDATE) WATCH(; want[_pid] = 1) } goto at_5; /* bob FOR UPDATE */
  fi;
at_5:  /* pay bob: holds alice FOR UPDATE, bob FOR UPDATE */
  if
  :: d_step { true -> DROP(alice_FOR_UPDATE); DROP(bob_FOR_UPDATE) WATCH(; want[_pid] = 0) } goto at_7; /* commit */
  fi;
at_7:  /* committed */
  if
  :: true -> goto end_at_0; /* recycle */
  fi;
at_2:  /* pay alice */
  if
  :: d_step { FREE(bob_FOR_UPDATE) -> TAKE(bob_FOR_UPDATE) WATCH(; want[_pid] = want_alice_FOR_UPDATE) } goto at_4; /* bob FOR UPDATE */
  fi;
at_4:  /* pay alice: holds bob FOR UPDATE */
  if
  :: d_step { FREE(alice_FOR_UPDATE) -> TAKE(alice_FOR_UPDATE) WATCH(; want[_pid] = 1) } goto at_6; /* alice FOR UPDATE */
  fi;
at_6:  /* pay alice: holds bob FOR UPDATE, alice FOR UPDATE */
  if
  :: d_step { true -> DROP(alice_FOR_UPDATE); DROP(bob_FOR_UPDATE) WATCH(; want[_pid] = 0) } goto at_7; /* commit */
  fi;
}

#ifndef COUNT
/* Sets of workers, bit w for worker w. */
SET blockers[N];  /* for each worker that waits, those it waits for */
SET waiting, running, stuck, before;
byte w;

inline find_blockers() {
  if
  :: want[w] == want_alice_FOR_UPDATE -> blockers[w] = (alice_FOR_UPDATE) & ~(1 << w)
  :: want[w] == want_bob_FOR_UPDATE -> blockers[w] = (bob_FOR_UPDATE) & ~(1 << w)
  :: else -> blockers[w] = 0
  fi
}

/* Worker w leaves the stuck ones if it will be free once all workers outside of `before` have gone. */
inline leave_if_hopeful() {
  if
  :: (blockers[w] & before) == 0 -> stuck = stuck & ~(1 << w)
  :: else
  fi
}

/* In every state: nobody is stuck for ever. The largest set of waiting workers that only wait for each other, by elimination. */
never {
  do
  :: d_step {
       true; w = 0;
       do
       :: w < N ->
          find_blockers();
          if :: blockers[w] != 0 -> waiting = waiting | (1 << w) :: else fi;
          if :: want[w] != 0 -> running = running | (1 << w) :: else fi;
          w++
       :: else -> break
       od;
       stuck = waiting;
       do
       :: stuck != before ->
          before = stuck; w = 0;
          do
          :: w < N -> if :: before & (1 << w) -> leave_if_hopeful() :: else fi; w++
          :: else -> break
          od
       :: else -> break
       od;
       assert(stuck == 0);  /* no deadlock */
       waiting = 0; running = 0; stuck = 0; before = 0; w = 0;
       do
       :: w < N -> blockers[w] = 0; w++
       :: else -> break
       od;
       w = 0
     }
  od
}
#endif
