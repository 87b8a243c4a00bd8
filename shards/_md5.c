/* MD5 (RFC 1321) of several messages at a time, for shards/proofs.py: of one alone each step waits for the last, so that
   most of a processor idles. Eight lie side by side in vectors, and where one ends the next message takes its place. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "words are read as they lie: elsewhere hashlib does it"
#endif

#define LANES 8
#define BLOCK 64

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define EVERY_MACHINE __attribute__((target_clones("avx2", "default")))
#else
#define EVERY_MACHINE
#endif

typedef uint32_t Words __attribute__((vector_size(4 * LANES)));

static uint32_t sines[64];

typedef struct {
    const uint8_t *at;
    Py_ssize_t left;          /* blocks from there on */
    uint8_t end[2 * BLOCK];   /* what is left of the message, and its length */
    int ends;                 /* blocks of that which are to come */
    Py_ssize_t message;       /* which it is; -1 if there is none */
} Lane;

static const uint8_t nothing[BLOCK];

/* Take so many blocks of every lane into its state [4, LANES]; a lane without a message stays where it is. */
EVERY_MACHINE
static void digest(uint32_t *state, Lane *lanes, Py_ssize_t blocks)
{
    Words a, b, c, d, w[16];
    const uint8_t *at[LANES];
    Py_ssize_t step[LANES];
    memcpy(&a, state, sizeof a), memcpy(&b, state + LANES, sizeof b);
    memcpy(&c, state + 2 * LANES, sizeof c), memcpy(&d, state + 3 * LANES, sizeof d);
    for (int i = 0; i < LANES; i++)
        at[i] = lanes[i].at, step[i] = lanes[i].message < 0 ? 0 : BLOCK;
    while (blocks--) {
        Words a0 = a, b0 = b, c0 = c, d0 = d;
        for (int i = 0; i < 16; i++) {
            uint32_t x[LANES];
            for (int lane = 0; lane < LANES; lane++)
                memcpy(&x[lane], at[lane] + 4 * i, 4);
            w[i] = (Words){x[0], x[1], x[2], x[3], x[4], x[5], x[6], x[7]};
        }
#define STEP(mix, a, b, c, d, i, word, by)                                                                             \
    a += (mix) + w[(word) & 15] + sines[i];                                                                            \
    a = ((a << by) | (a >> (32 - by))) + b;
#define FOUR(F, i, from, along, r, s, t, u)                                                                            \
    STEP(F(b, c, d), a, b, c, d, i, from, r)                                                                           \
    STEP(F(a, b, c), d, a, b, c, i + 1, from + along, s)                                                               \
    STEP(F(d, a, b), c, d, a, b, i + 2, from + 2 * along, t)                                                           \
    STEP(F(c, d, a), b, c, d, a, i + 3, from + 3 * along, u)
#define ROUND(F, i, from, along, r, s, t, u)                                                                           \
    FOUR(F, i, from, along, r, s, t, u)                                                                                \
    FOUR(F, i + 4, from + 4 * along, along, r, s, t, u)                                                                \
    FOUR(F, i + 8, from + 8 * along, along, r, s, t, u)                                                                \
    FOUR(F, i + 12, from + 12 * along, along, r, s, t, u)
#define FIRST(x, y, z) (z ^ (x & (y ^ z)))
#define SECOND(x, y, z) (y ^ (z & (x ^ y)))
#define THIRD(x, y, z) (x ^ y ^ z)
#define FOURTH(x, y, z) (y ^ (x | ~z))
        ROUND(FIRST, 0, 0, 1, 7, 12, 17, 22)
        ROUND(SECOND, 16, 1, 5, 5, 9, 14, 20)
        ROUND(THIRD, 32, 5, 3, 4, 11, 16, 23)
        ROUND(FOURTH, 48, 0, 7, 6, 10, 15, 21)
        a += a0, b += b0, c += c0, d += d0;
        for (int i = 0; i < LANES; i++)
            at[i] += step[i];
    }
    memcpy(state, &a, sizeof a), memcpy(state + LANES, &b, sizeof b);
    memcpy(state + 2 * LANES, &c, sizeof c), memcpy(state + 3 * LANES, &d, sizeof d);
    for (int i = 0; i < LANES; i++)
        lanes[i].at = at[i];
}

/* Put a message into a lane, or none if `number` is -1. */
static void begin(Lane *lane, uint32_t *state, Py_ssize_t number, const Py_buffer *message)
{
    static const uint32_t start[4] = {0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476};
    lane->message = number;
    lane->ends = 0;
    lane->at = nothing;
    lane->left = PY_SSIZE_T_MAX;
    if (number < 0)
        return;
    Py_ssize_t rest = message->len % BLOCK;
    uint64_t bits = (uint64_t)message->len * 8;
    for (int word = 0; word < 4; word++)
        state[word * LANES] = start[word];
    lane->at = message->buf;
    lane->left = message->len / BLOCK;
    lane->ends = rest < BLOCK - 8 ? 1 : 2;
    memset(lane->end, 0, sizeof lane->end);
    if (rest)
        memcpy(lane->end, lane->at + message->len - rest, rest);
    lane->end[rest] = 0x80;
    memcpy(lane->end + lane->ends * BLOCK - 8, &bits, 8);
}

static void digest_all(const Py_buffer *messages, Py_ssize_t count, uint8_t *out)
{
    uint32_t state[4 * LANES] = {0};
    Lane lanes[LANES];
    Py_ssize_t next = 0, open = 0;
    for (int i = 0; i < LANES; i++, next++) {
        begin(&lanes[i], state + i, next < count ? next : -1, messages + next);
        open += next < count;
    }
    while (open) {
        Py_ssize_t blocks = PY_SSIZE_T_MAX;
        for (int i = 0; i < LANES; i++) {
            Lane *lane = &lanes[i];
            if (!lane->left && lane->ends) {
                lane->at = lane->end, lane->left = lane->ends, lane->ends = 0;
            } else if (!lane->left) {
                for (int word = 0; word < 4; word++)
                    memcpy(out + 16 * lane->message + 4 * word, state + word * LANES + i, 4);
                begin(lane, state + i, next < count ? next : -1, messages + next);
                open -= next++ >= count;
                i--; /* it may be empty */
                continue;
            }
            blocks = lane->left < blocks ? lane->left : blocks;
        }
        if (!open)
            break;
        digest(state, lanes, blocks);
        for (int i = 0; i < LANES; i++)
            lanes[i].left -= lanes[i].message < 0 ? 0 : blocks;
    }
}

/* digests(messages) -> the 16 bytes of each */
static PyObject *digests(PyObject *self, PyObject *args)
{
    PyObject *given, *list, *told = NULL;
    if (!PyArg_ParseTuple(args, "O", &given) || !(list = PySequence_Fast(given, "digests() takes a sequence")))
        return NULL;
    Py_ssize_t count = PySequence_Fast_GET_SIZE(list), held = 0;
    Py_buffer *messages = PyMem_Calloc(count + 1, sizeof *messages);
    uint8_t *out = PyMem_Calloc(count + 1, 16);
    if (!messages || !out)
        PyErr_NoMemory();
    while (messages && out && held < count &&
           !PyObject_GetBuffer(PySequence_Fast_GET_ITEM(list, held), messages + held, PyBUF_SIMPLE))
        held++;
    if (messages && out && held == count) {
        Py_BEGIN_ALLOW_THREADS
        digest_all(messages, count, out);
        Py_END_ALLOW_THREADS
        told = PyList_New(count);
        for (Py_ssize_t i = 0; told && i < count; i++) {
            PyObject *one = PyBytes_FromStringAndSize((char *)out + 16 * i, 16);
            if (!one)
                Py_CLEAR(told);
            else
                PyList_SET_ITEM(told, i, one);
        }
    }
    while (held)
        PyBuffer_Release(messages + --held);
    PyMem_Free(messages);
    PyMem_Free(out);
    Py_DECREF(list);
    return told;
}

static PyMethodDef methods[] = {{"digests", digests, METH_VARARGS, "MD5 of messages; see shards/proofs.py."}, {NULL}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "shards._md5", NULL, 0, methods};

PyMODINIT_FUNC PyInit__md5(void)
{
    for (int i = 0; i < 64; i++)
        sines[i] = (uint32_t)floor(fabs(sin(i + 1)) * 4294967296.0);
    return PyModuleDef_Init(&module);
}
