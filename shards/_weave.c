/* The inner loop of shards/weave.py, which has the same in Python and says what it does. Both must draw the same:
   the operations on doubles are those of Python, in its order, and are never fused (-ffp-contract=off). */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>

#define HAIR 1e-9
#define AHEAD 256
#define TASKS 64

typedef struct {
    Py_ssize_t queues, tasks;
    const int32_t *task_of;
    const double *share, *task_share;
    double *had, *task_had, now;
    double *own, *due;
    char *may;
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

static Py_ssize_t counted(Loom *loom)
{
    Py_ssize_t behind = 0;
    for (Py_ssize_t queue = 0; queue < loom->queues; queue++) {
        int32_t task = loom->task_of[queue];
        double task_due = (loom->task_had[task] + 1.0) / loom->task_share[task];
        loom->own[queue] = (loom->had[queue] + 1.0) / loom->share[queue];
        loom->due[queue] = loom->own[queue] < task_due ? loom->own[queue] : task_due;
        if (loom->due[queue] < loom->due[behind])
            behind = queue;
        loom->may[queue] = loom->task_had[task] + 1.0 - (loom->now + 1.0) * loom->task_share[task] < 1.0 - HAIR &&
                           loom->had[queue] + 1.0 - (loom->now + 1.0) * loom->share[queue] < 1.0 - HAIR;
    }
    Py_ssize_t usual = due_first(loom->task_share, loom->task_had, loom->tasks, loom->now);
    for (;;) {
        Py_ssize_t best = -1;
        for (Py_ssize_t queue = 0; queue < loom->queues; queue++)
            if (loom->may[queue] && (best < 0 || loom->due[queue] < loom->due[best] ||
                                     (loom->due[queue] == loom->due[best] && loom->own[queue] < loom->own[best])))
                best = queue;
        if (best < 0)
            return behind;
        int32_t task = loom->task_of[best];
        if (usual < 0 || task == usual || in_time(loom->task_share, loom->task_had, loom->tasks, loom->now, task))
            return best;
        for (Py_ssize_t queue = 0; queue < loom->queues; queue++)
            loom->may[queue] = loom->may[queue] && loom->task_of[queue] != task;
    }
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

/* weave(shares, tasks, task_shares, served, task_served, sizes, width, taken, out) -> turns drawn */
static PyObject *weave(PyObject *self, PyObject *args)
{
    Py_buffer shares, tasks, task_shares, served, task_served, sizes, taken, out;
    Py_ssize_t width, turn = 0;
    if (!PyArg_ParseTuple(args, "y*y*y*w*w*y*nw*w*", &shares, &tasks, &task_shares, &served, &task_served, &sizes, &width,
                          &taken, &out))
        return NULL;
    Loom loom = {.queues = shares.len / sizeof(double), .tasks = task_shares.len / sizeof(double), .task_of = tasks.buf,
                 .share = shares.buf, .task_share = task_shares.buf, .had = served.buf, .task_had = task_served.buf};
    int32_t *took = taken.buf, *drawn = out.buf;
    const double *size = sizes.buf;
    Py_ssize_t count = out.len / sizeof(int32_t), numbers = loom.queues * (Py_ssize_t)sizeof(int32_t);
    loom.own = PyMem_Calloc(2 * loom.queues + 1, sizeof(double));
    loom.due = loom.own + loom.queues;
    loom.may = PyMem_Calloc(loom.queues + 1, 1);
    int fits = loom.own && loom.may && loom.queues > 0 && tasks.len == numbers && taken.len == numbers &&
               served.len == shares.len && task_served.len == task_shares.len && width >= 0 &&
               sizes.len == shares.len * width;
    for (Py_ssize_t queue = 0; fits && queue < loom.queues; queue++)
        fits = loom.task_of[queue] >= 0 && loom.task_of[queue] < loom.tasks && took[queue] >= 0;
    if (fits) {
        Py_BEGIN_ALLOW_THREADS
        for (Py_ssize_t task = 0; task < loom.tasks; task++)
            loom.now += loom.task_had[task];
        for (; turn < count; turn++) {
            int ended = 0;
            for (Py_ssize_t queue = 0; width && queue < loom.queues; queue++)
                ended = ended || took[queue] >= width;
            if (ended)
                break;
            Py_ssize_t best = width ? sized(&loom, size, width, took) : counted(&loom);
            double one = width ? size[best * width + took[best]] : 1.0;
            loom.had[best] += one;
            loom.task_had[loom.task_of[best]] += one;
            loom.now += one;
            took[best] += 1;
            drawn[turn] = (int32_t)best;
        }
        Py_END_ALLOW_THREADS
    }
    PyMem_Free(loom.own);
    PyMem_Free(loom.may);
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
