/* The loops of shards/audit/likeness.py, which has the same in numpy and says what they are for: words held against
   others, and the pairs that differ in few bits told. Numbers of clips and pairs of them are of 32 bits. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define STEP 256
#define DIGIT 8

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define EVERY_MACHINE __attribute__((target_clones("arch=icelake-server", "popcnt", "default")))
#else
#define EVERY_MACHINE
#endif

enum made { WHOLE, FULL, ASTRAY };

typedef struct {
    uint32_t *at;
    Py_ssize_t count, room; /* of numbers, two a pair */
} Pairs;

/* Without the interpreter, so without its allocator. */
static int add(Pairs *pairs, uint32_t one, uint32_t other)
{
    if (pairs->count == pairs->room) {
        Py_ssize_t room = pairs->room ? 2 * pairs->room : 1024;
        uint32_t *more = realloc(pairs->at, room * sizeof *more);
        if (!more)
            return 0;
        pairs->at = more, pairs->room = room;
    }
    pairs->at[pairs->count++] = one;
    pairs->at[pairs->count++] = other;
    return 1;
}

static PyObject *told(Pairs *pairs, enum made made)
{
    PyObject *bytes = NULL;
    if (made == WHOLE)
        bytes = PyBytes_FromStringAndSize((char *)pairs->at, pairs->count * (Py_ssize_t)sizeof *pairs->at);
    else if (made == FULL)
        PyErr_NoMemory();
    else
        PyErr_SetString(PyExc_ValueError, "the arrays do not fit together");
    free(pairs->at);
    return bytes;
}

static void release(Py_buffer **all, size_t count)
{
    for (size_t one = 0; one < count; one++)
        PyBuffer_Release(all[one]);
}

/* By STEPs of words, one place after the other: whether any two are alike is told of several at a time. */
EVERY_MACHINE
static enum made hold_near(const uint64_t *words, const uint32_t *clips, Py_ssize_t count, Py_ssize_t reach, int limit,
                           Pairs *pairs)
{
    for (Py_ssize_t start = 0; start < count; start += STEP)
        for (Py_ssize_t apart = 1; apart <= reach && apart < count - start; apart++) {
            const uint64_t *these = words + start, *those = these + apart;
            Py_ssize_t here = count - start - apart < STEP ? count - start - apart : STEP;
            uint64_t some = 0;
            for (Py_ssize_t i = 0; i < here; i++)
                some |= (uint64_t)__builtin_popcountll(these[i] ^ those[i]) <= (uint64_t)limit;
            for (Py_ssize_t i = start; some && i < start + here; i++)
                if (__builtin_popcountll(words[i] ^ words[i + apart]) <= limit && clips[i] != clips[i + apart] &&
                    !add(pairs, clips[i], clips[i + apart]))
                    return FULL;
        }
    return WHOLE;
}

/* near(words, clips, reach, limit) -> pairs of different clips whose words lie at most `reach` places apart and are
   alike */
static PyObject *near(PyObject *self, PyObject *args)
{
    Py_buffer words, clips;
    Py_ssize_t reach;
    int limit;
    enum made made = WHOLE;
    if (!PyArg_ParseTuple(args, "y*y*ni", &words, &clips, &reach, &limit))
        return NULL;
    Py_ssize_t count = words.len / (Py_ssize_t)sizeof(uint64_t);
    Pairs pairs = {NULL, 0, 0};
    int fits = words.len == count * (Py_ssize_t)sizeof(uint64_t) && reach >= 0 && limit >= 0 &&
               clips.len == count * (Py_ssize_t)sizeof(uint32_t);
    if (fits) {
        Py_BEGIN_ALLOW_THREADS
        made = hold_near(words.buf, clips.buf, count, reach, limit, &pairs);
        Py_END_ALLOW_THREADS
    }
    Py_buffer *all[] = {&words, &clips};
    release(all, 2);
    if (!fits)
        made = ASTRAY;
    return told(&pairs, made);
}

typedef struct {
    const uint64_t *words;
    const uint32_t *clips;
    const int32_t *ends;   /* where the words of each chunk begin, and the last end */
    const uint8_t *taken;  /* a bit a chunk: few of those looked up have any words, and so much stays in the cache */
    Py_ssize_t size, most; /* words, and those of a chunk that are compared */
    int shift, width;
} Table;

/* By STEPs: all that a step needs from far memory is asked for before the first of it is waited for. */
EVERY_MACHINE
static enum made look_up(const uint64_t *words, const uint32_t *clips, Py_ssize_t count, const Table *table, int limit,
                         Pairs *pairs)
{
    const uint64_t mask = ((uint64_t)1 << table->width) - 1;
    Py_ssize_t known[STEP], begins[STEP];
    for (Py_ssize_t start = 0; start < count; start += STEP) {
        Py_ssize_t end = start + STEP < count ? start + STEP : count, some = 0;
        for (Py_ssize_t i = start; i < end; i++) {
            uint64_t chunk = words[i] >> table->shift & mask;
            known[some] = i;
            some += table->taken[chunk >> 3] >> (chunk & 7) & 1;
        }
        for (Py_ssize_t one = 0; one < some; one++)
            __builtin_prefetch(&table->ends[words[known[one]] >> table->shift & mask]);
        for (Py_ssize_t one = 0; one < some; one++) {
            begins[one] = table->ends[words[known[one]] >> table->shift & mask];
            if (begins[one] < 0 || begins[one] > table->size)
                return ASTRAY;
            __builtin_prefetch(table->words + begins[one]);
        }
        for (Py_ssize_t one = 0; one < some; one++) {
            uint64_t word = words[known[one]];
            Py_ssize_t last = table->ends[(word >> table->shift & mask) + 1];
            if (last > table->size)
                return ASTRAY;
            if (last - begins[one] > table->most)
                last = begins[one] + table->most;
            for (Py_ssize_t i = begins[one]; i < last; i++)
                if (__builtin_popcountll(word ^ table->words[i]) <= limit &&
                    !add(pairs, clips[known[one]], table->clips[i]))
                    return FULL;
        }
    }
    return WHOLE;
}

/* look(words, clips, held_words, held_clips, ends, taken, shift, width, most, limit) -> pairs (clip, held clip)
   of words that are alike and have one chunk, `width` bits from `shift` on, each held against `most` words at most */
static PyObject *look(PyObject *self, PyObject *args)
{
    Py_buffer words, clips, held, held_clips, ends, taken;
    Table table;
    int limit;
    enum made made = WHOLE;
    if (!PyArg_ParseTuple(args, "y*y*y*y*y*y*iini", &words, &clips, &held, &held_clips, &ends, &taken, &table.shift,
                          &table.width, &table.most, &limit))
        return NULL;
    Py_ssize_t count = words.len / (Py_ssize_t)sizeof(uint64_t), size = held.len / (Py_ssize_t)sizeof(uint64_t);
    Pairs pairs = {NULL, 0, 0};
    int fits = table.width >= 3 && table.width <= 30 && table.shift >= 0 && table.shift <= 64 - table.width &&
               words.len == count * (Py_ssize_t)sizeof(uint64_t) && held.len == size * (Py_ssize_t)sizeof(uint64_t) &&
               clips.len == count * (Py_ssize_t)sizeof(uint32_t) &&
               held_clips.len == size * (Py_ssize_t)sizeof(uint32_t) &&
               ends.len == (((Py_ssize_t)1 << table.width) + 1) * (Py_ssize_t)sizeof(int32_t) &&
               taken.len == (Py_ssize_t)1 << (table.width - 3);
    table.size = size;
    table.words = held.buf, table.clips = held_clips.buf, table.ends = ends.buf, table.taken = taken.buf;
    if (fits) {
        Py_BEGIN_ALLOW_THREADS
        made = look_up(words.buf, clips.buf, count, &table, limit, &pairs);
        Py_END_ALLOW_THREADS
    }
    Py_buffer *all[] = {&words, &clips, &held, &held_clips, &ends, &taken};
    release(all, 6);
    if (!fits)
        made = ASTRAY;
    return told(&pairs, made);
}

/* Digit by digit, the last first; from one array to the other and back. */
static enum made sort_by(uint64_t *numbers, Py_ssize_t count, int low)
{
    int digits = (64 - low + DIGIT - 1) / DIGIT, width = (64 - low + digits - 1) / digits;
    const uint64_t mask = ((uint64_t)1 << width) - 1;
    uint64_t *spare = malloc((count + 1) * sizeof *spare), *from = numbers, *to = spare;
    Py_ssize_t *places = malloc(((size_t)1 << width) * sizeof *places);
    for (int shift = low; spare && places && shift < 64; shift += width) {
        Py_ssize_t place = 0;
        memset(places, 0, ((size_t)1 << width) * sizeof *places);
        for (Py_ssize_t i = 0; i < count; i++)
            places[from[i] >> shift & mask]++;
        for (uint64_t digit = 0; digit <= mask; digit++) {
            Py_ssize_t here = places[digit];
            places[digit] = place;
            place += here;
        }
        for (Py_ssize_t i = 0; i < count; i++)
            to[places[from[i] >> shift & mask]++] = from[i];
        uint64_t *last = to;
        to = from, from = last;
    }
    enum made made = spare && places ? WHOLE : FULL;
    if (from == spare && made == WHOLE)
        memcpy(numbers, spare, count * sizeof *spare);
    free(spare);
    free(places);
    return made;
}

/* sort(numbers, low): in place, by their bits from `low` on; what is the same there stays in order */
static PyObject *sort(PyObject *self, PyObject *args)
{
    Py_buffer numbers;
    int low;
    enum made made = ASTRAY;
    if (!PyArg_ParseTuple(args, "w*i", &numbers, &low))
        return NULL;
    if (low >= 0 && low < 64 && !(numbers.len % (Py_ssize_t)sizeof(uint64_t))) {
        Py_BEGIN_ALLOW_THREADS
        made = sort_by(numbers.buf, numbers.len / (Py_ssize_t)sizeof(uint64_t), low);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&numbers);
    Pairs none = {NULL, 0, 0};
    return told(&none, made);
}

static PyMethodDef methods[] = {{"near", near, METH_VARARGS, "Hold words against those behind them."},
                                {"look", look, METH_VARARGS, "Hold words against those of a table."},
                                {"sort", sort, METH_VARARGS, "Sort numbers by their upper bits."},
                                {NULL}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "shards._alike", NULL, 0, methods};

PyMODINIT_FUNC PyInit__alike(void)
{
    return PyModuleDef_Init(&module);
}
