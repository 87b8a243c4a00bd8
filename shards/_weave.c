/* The inner loop of shards/weave.py, which has the same in Python and says what it does. Both must draw the same:
   the operations on doubles are those of Python, in its order, and are never fused (-ffp-contract=off). */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>

#define HAIR 1e-9
#define AHEAD 256
#define TASKS 64
#define REACH 256
#define BEYOND 32
#define CHOICES 8
#define CHANGES 4
#define TRIES 20000

typedef struct {
    Py_ssize_t queues, tasks;
    const int32_t *task_of;
    const double *share, *task_share;
    double *had, *task_had, now, early;
    double *due, *task_due;
    char *may, *task_may;
    Py_ssize_t falling, faller;
    int32_t *path;
    long left;
} Loom;

static Py_ssize_t due_first(const double *share, const double *had, Py_ssize_t tasks, double turns)
{
    Py_ssize_t best = -1;
    double best_due = 0.0;
    for (Py_ssize_t task = 0; task < tasks; task++) {
        if (had[task] + 1.0 - (turns + 1.0) * share[task] >= 1.0 - HAIR)
            continue;
        double due = (had[task] + 1.0) / share[task];
        if (best < 0 || due < best_due)
            best = task, best_due = due;
    }
    return best;
}

static int in_time(const double *share, const double *had, Py_ssize_t tasks, double turns, Py_ssize_t task)
{
    double safe[TASKS], bold[TASKS];
    if (tasks > TASKS)
        return 0;
    for (Py_ssize_t one = 0; one < tasks; one++)
        safe[one] = bold[one] = had[one];
    for (int more = 0; more < AHEAD; more++) {
        Py_ssize_t usual = due_first(share, safe, tasks, turns);
        Py_ssize_t mine = more ? due_first(share, bold, tasks, turns) : task;
        if (usual < 0 || mine < 0)
            return 0;
        safe[usual] += 1.0;
        bold[mine] += 1.0;
        turns += 1.0;
        int same = 1;
        for (Py_ssize_t one = 0; one < tasks; one++) {
            if (turns * share[one] - bold[one] >= 1.0 - HAIR)
                return 0;
            same = same && safe[one] == bold[one];
        }
        if (same)
            return 1;
    }
    return 0;
}

static void serve(Loom *loom, Py_ssize_t queue, double amount)
{
    loom->had[queue] += amount;
    loom->task_had[loom->task_of[queue]] += amount;
    loom->now += amount;
}

/* Where none may be served, which never is: as Python has it, the one that is due first. */
static Py_ssize_t behind(const Loom *loom)
{
    Py_ssize_t best = 0;
    double best_due = 0.0;
    for (Py_ssize_t queue = 0; queue < loom->queues; queue++) {
        double own = (loom->had[queue] + 1.0) / loom->share[queue];
        double due = loom->task_due[loom->task_of[queue]];
        due = due < own ? due + loom->early * (own - due) : own;
        if (!queue || due < best_due)
            best = queue, best_due = due;
    }
    return best;
}

/* Says by the way who would fall behind without this turn. */
static Py_ssize_t choose(Loom *loom, int rank)
{
    Py_ssize_t usual = -1;
    int wanted = rank;
    loom->falling = 0;
    for (Py_ssize_t task = 0; task < loom->tasks; task++) {
        loom->task_due[task] = (loom->task_had[task] + 1.0) / loom->task_share[task];
        loom->task_may[task] = loom->task_had[task] + 1.0 - (loom->now + 1.0) * loom->task_share[task] < 1.0 - HAIR;
        if (loom->task_may[task] && (usual < 0 || loom->task_due[task] < loom->task_due[usual]))
            usual = task;
    }
    for (Py_ssize_t queue = 0; queue < loom->queues; queue++) {
        int32_t task = loom->task_of[queue];
        double had = loom->had[queue], share = loom->share[queue], then = (loom->now + 1.0) * share;
        if (then - had >= 1.0 - HAIR && loom->now * share - had < 1.0 - HAIR)
            loom->falling++, loom->faller = queue;
        loom->may[queue] = loom->task_may[task] && had + 1.0 - then < 1.0 - HAIR;
        if (!loom->may[queue])
            continue;
        double own = (had + 1.0) / share, due = loom->task_due[task];
        loom->due[queue] = due < own ? due + loom->early * (own - due) : own;
    }
    for (;;) {
        Py_ssize_t best = -1;
        for (Py_ssize_t queue = 0; queue < loom->queues; queue++)
            if (loom->may[queue] && (best < 0 || loom->due[queue] < loom->due[best]))
                best = queue;
        if (best < 0)
            return rank ? -1 : behind(loom);
        int32_t task = loom->task_of[best];
        if (usual >= 0 && task != usual && !in_time(loom->task_share, loom->task_had, loom->tasks, loom->now, task)) {
            for (Py_ssize_t queue = 0; queue < loom->queues; queue++)
                loom->may[queue] = loom->may[queue] && loom->task_of[queue] != task;
        } else if (wanted) {
            wanted--;
            loom->may[best] = 0;
        } else {
            return best;
        }
    }
}

/* After choose(), in the same turn. */
static int lapses(const Loom *loom, Py_ssize_t queue)
{
    return loom->falling > (loom->falling == 1 && loom->faller == queue);
}

static Py_ssize_t mend(Loom *loom, Py_ssize_t first, Py_ssize_t last, Py_ssize_t end, int changes)
{
    int32_t *path = loom->path;
    for (Py_ssize_t turn = last;; turn--) {
        for (int rank = 1; rank < CHOICES; rank++) {
            path[turn] = (int32_t)choose(loom, rank);
            if (path[turn] < 0 || loom->left <= 0)
                break;
            Py_ssize_t at = turn;
            while (at < end && !lapses(loom, path[at])) {
                serve(loom, path[at++], 1.0);
                path[at] = (int32_t)choose(loom, 0);
                loom->left--;
            }
            int held = at == end;
            if (!held && changes > 1 && at > turn) {
                at = mend(loom, turn + 1, at, end, changes - 1);
                held = at >= 0;
                at = held ? at : turn + 1;
            }
            while (at > turn)
                serve(loom, path[--at], -1.0);
            if (held)
                return turn;
        }
        if (turn == first)
            return -1;
        serve(loom, path[turn - 1], -1.0);
    }
}

static Py_ssize_t mended(Loom *loom, Py_ssize_t first, Py_ssize_t last)
{
    for (int changes = 1; changes <= CHANGES; changes++) {
        loom->left = TRIES;
        Py_ssize_t changed = mend(loom, first, last, last + BEYOND, changes);
        if (changed >= 0)
            return changed;
        for (Py_ssize_t turn = first; turn < last; turn++) {
            loom->path[turn] = (int32_t)choose(loom, 0);
            serve(loom, loom->path[turn], 1.0);
        }
        loom->path[last] = (int32_t)choose(loom, 0);
    }
    return last;
}

static void counted(Loom *loom, Py_ssize_t count)
{
    int32_t *path = loom->path;
    Py_ssize_t at = 0, settled = 0;
    while (count && at < count + REACH) {
        path[at] = (int32_t)choose(loom, 0);
        if (lapses(loom, path[at])) {
            at = mended(loom, settled > at - REACH + 1 ? settled : at - REACH + 1, at);
            settled = at + 1;
        }
        serve(loom, path[at++], 1.0);
    }
    while (at > count)
        serve(loom, path[--at], -1.0);
}

/* `size` has `width` sizes of each queue, of which it `took` so many. */
static Py_ssize_t sized(const Loom *loom, const double *size, Py_ssize_t width, const int32_t *took)
{
    Py_ssize_t best = -1, spare = -1;
    double best_due = 0.0, spare_due = 0.0;
    for (Py_ssize_t task = 0; task < loom->tasks; task++) {
        Py_ssize_t head = -1, idle = -1;
        double head_due = 0.0, idle_due = 0.0;
        for (Py_ssize_t queue = 0; queue < loom->queues; queue++) {
            if (loom->task_of[queue] != task)
                continue;
            double had = loom->had[queue], share = loom->share[queue];
            if (idle < 0 || had / share < idle_due)
                idle = queue, idle_due = had / share;
            if (had > loom->task_had[task] * (share / loom->task_share[task]) * (1.0 + HAIR))
                continue;
            double due = (had + size[queue * width + took[queue]]) / share;
            if (head < 0 || due < head_due)
                head = queue, head_due = due;
        }
        if (head < 0)
            head = idle;
        if (head < 0)
            continue;
        double had = loom->task_had[task], share = loom->task_share[task];
        if (spare < 0 || had / share < spare_due)
            spare = head, spare_due = had / share;
        if (had > loom->now * share * (1.0 + HAIR))
            continue;
        double due = (had + size[head * width + took[head]]) / share;
        if (best < 0 || due < best_due)
            best = head, best_due = due;
    }
    return best < 0 ? spare : best;
}

/* weave(shares, tasks, task_shares, served, task_served, sizes, width, early, taken, out) -> turns drawn */
static PyObject *weave(PyObject *self, PyObject *args)
{
    Py_buffer shares, tasks, task_shares, served, task_served, sizes, taken, out;
    Py_ssize_t width, turn = 0;
    double early;
    if (!PyArg_ParseTuple(args, "y*y*y*w*w*y*ndw*w*", &shares, &tasks, &task_shares, &served, &task_served, &sizes, &width,
                          &early, &taken, &out))
        return NULL;
    Loom loom = {.queues = shares.len / sizeof(double), .tasks = task_shares.len / sizeof(double), .task_of = tasks.buf,
                 .share = shares.buf, .task_share = task_shares.buf, .had = served.buf, .task_had = task_served.buf,
                 .early = early};
    int32_t *took = taken.buf, *drawn = out.buf;
    const double *size = sizes.buf;
    Py_ssize_t count = out.len / sizeof(int32_t), numbers = loom.queues * (Py_ssize_t)sizeof(int32_t);
    loom.due = PyMem_Calloc(loom.queues + loom.tasks + 1, sizeof(double));
    loom.task_due = loom.due + loom.queues;
    loom.may = PyMem_Calloc(loom.queues + loom.tasks + 1, 1);
    loom.task_may = loom.may + loom.queues;
    loom.path = PyMem_Calloc(count + REACH + BEYOND + 1, sizeof(int32_t));
    int fits = loom.due && loom.may && loom.path && loom.queues > 0 && tasks.len == numbers && taken.len == numbers &&
               served.len == shares.len && task_served.len == task_shares.len && width >= 0 &&
               sizes.len == shares.len * width;
    for (Py_ssize_t queue = 0; fits && queue < loom.queues; queue++)
        fits = loom.task_of[queue] >= 0 && loom.task_of[queue] < loom.tasks && took[queue] >= 0;
    if (fits) {
        Py_BEGIN_ALLOW_THREADS
        for (Py_ssize_t task = 0; task < loom.tasks; task++)
            loom.now += loom.task_had[task];
        if (!width)
            counted(&loom, count);
        for (; !width && turn < count; turn++) {
            drawn[turn] = loom.path[turn];
            took[drawn[turn]] += 1;
        }
        for (; turn < count; turn++) {
            int ended = 0;
            for (Py_ssize_t queue = 0; queue < loom.queues; queue++)
                ended = ended || took[queue] >= width;
            if (ended)
                break;
            Py_ssize_t best = sized(&loom, size, width, took);
            serve(&loom, best, size[best * width + took[best]]);
            took[best] += 1;
            drawn[turn] = (int32_t)best;
        }
        Py_END_ALLOW_THREADS
    }
    PyMem_Free(loom.due);
    PyMem_Free(loom.may);
    PyMem_Free(loom.path);
    Py_buffer *all[] = {&shares, &tasks, &task_shares, &served, &task_served, &sizes, &taken, &out};
    for (size_t one = 0; one < sizeof(all) / sizeof(*all); one++)
        PyBuffer_Release(all[one]);
    if (!fits) {
        PyErr_SetString(PyExc_ValueError, "the arrays of weave() do not fit together");
        return NULL;
    }
    return PyLong_FromSsize_t(turn);
}

static PyMethodDef methods[] = {{"weave", weave, METH_VARARGS, "Draw turns; see shards/weave.py."}, {NULL}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "shards._weave", NULL, 0, methods};

PyMODINIT_FUNC PyInit__weave(void)
{
    return PyModuleDef_Init(&module);
}
