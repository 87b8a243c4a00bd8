/* The loops of shards/audit/likeness.py, which has the same in numpy and says what they are for: words held against
   others, and the pairs that differ in few bits told. Numbers of clips and pairs of them are of 32 bits.
   Behind them those of shards/audit/runs.py, likewise: what texts say, and its runs of thirteen words. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

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

/* Count by count: first how many words each chunk has, then where they begin, then each word to its place. */
static void fill_in(const uint64_t *words, const uint32_t *clips, Py_ssize_t size, int shift, int width,
                    uint64_t *to_words, uint32_t *to_clips, int32_t *ends, uint8_t *taken)
{
    const uint64_t mask = ((uint64_t)1 << width) - 1;
    for (Py_ssize_t i = 0; i < size; i++)
        ends[(words[i] >> shift & mask) + 1]++;
    for (uint64_t chunk = 0; chunk <= mask; chunk++) {
        taken[chunk >> 3] |= (uint8_t)((ends[chunk + 1] != 0) << (chunk & 7));
        ends[chunk + 1] += ends[chunk];
    }
    /* From the last: what each chunk ends with moves on to where it begins, and words of one stay in order. */
    for (Py_ssize_t i = size; i-- > 0;) {
        int32_t place = --ends[(words[i] >> shift & mask) + 1];
        to_words[place] = words[i];
        to_clips[place] = clips[i];
    }
    memmove(ends, ends + 1, (mask + 1) * sizeof *ends);
    ends[mask + 1] = (int32_t)size;
}

/* fill(words, clips, shift, width) -> words, clips, ends, taken: a table for look() */
static PyObject *fill(PyObject *self, PyObject *args)
{
    Py_buffer words, clips;
    int shift, width;
    PyObject *made[4] = {NULL, NULL, NULL, NULL}, *table = NULL;
    if (!PyArg_ParseTuple(args, "y*y*ii", &words, &clips, &shift, &width))
        return NULL;
    Py_ssize_t size = words.len / (Py_ssize_t)sizeof(uint64_t);
    if (words.len != size * (Py_ssize_t)sizeof(uint64_t) || clips.len != size * (Py_ssize_t)sizeof(uint32_t) ||
        width < 3 || width > 30 || shift < 0 || shift > 64 - width || size >= INT32_MAX) {
        PyErr_SetString(PyExc_ValueError, "the arrays do not fit together");
        goto done;
    }
    Py_ssize_t ends = (((Py_ssize_t)1 << width) + 1) * (Py_ssize_t)sizeof(int32_t), taken = (Py_ssize_t)1 << (width - 3);
    Py_ssize_t sizes[4] = {words.len, clips.len, ends, taken};
    for (int one = 0; one < 4; one++)
        if (!(made[one] = PyBytes_FromStringAndSize(NULL, sizes[one])))
            goto done;
    Py_BEGIN_ALLOW_THREADS
    memset(PyBytes_AS_STRING(made[2]), 0, ends);
    memset(PyBytes_AS_STRING(made[3]), 0, taken);
    fill_in(words.buf, clips.buf, size, shift, width, (uint64_t *)PyBytes_AS_STRING(made[0]),
            (uint32_t *)PyBytes_AS_STRING(made[1]), (int32_t *)PyBytes_AS_STRING(made[2]),
            (uint8_t *)PyBytes_AS_STRING(made[3]));
    Py_END_ALLOW_THREADS
    table = PyTuple_Pack(4, made[0], made[1], made[2], made[3]);
done:
    for (int one = 0; one < 4; one++)
        Py_XDECREF(made[one]);
    PyBuffer_Release(&words);
    PyBuffer_Release(&clips);
    return table;
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

/* Texts of Arrow: from one of `offsets` to the next, in `content`. */
typedef struct {
    const uint8_t *content;
    const int32_t *offsets;
    Py_ssize_t count;
} Texts;

static int texts_of(Texts *texts, const Py_buffer *content, const Py_buffer *offsets)
{
    texts->content = content->buf, texts->offsets = offsets->buf;
    texts->count = offsets->len / (Py_ssize_t)sizeof(int32_t) - 1;
    int fits = texts->count >= 0 && offsets->len % (Py_ssize_t)sizeof(int32_t) == 0 && texts->offsets[0] >= 0 &&
               texts->offsets[texts->count] <= content->len;
    for (Py_ssize_t row = 0; fits && row < texts->count; row++)
        fits = texts->offsets[row] <= texts->offsets[row + 1];
    return fits;
}

enum { BLANK = 1, SMALL = 2, CAPITAL = 4, DIGIT_OF_TEN = 8 };
static uint8_t kinds[256];

static void know_kinds(void)
{
    kinds[' '] = BLANK;
    for (int letter = 0; letter < 26; letter++)
        kinds['a' + letter] = SMALL, kinds['A' + letter] = CAPITAL;
    for (int digit = 0; digit < 10; digit++)
        kinds['0' + digit] = DIGIT_OF_TEN;
}

/* As `SILENT` has it: small letters in angle brackets and a blank behind, or all that is no letter, digit or blank. */
static const uint8_t *past_silence(const uint8_t *at, const uint8_t *end)
{
    if (*at == '<') {
        const uint8_t *tag = at + 1;
        while (tag < end && kinds[*tag] & (SMALL | CAPITAL))
            tag++;
        if (tag < end && tag > at + 1 && *tag == '>')
            return tag + 1 < end && tag[1] == ' ' ? tag + 2 : tag + 1;
    }
    while (at < end && !kinds[*at])
        at++;
    return at;
}

/* One text in small letters, trimmed; return where it ends. A text that is not ASCII is copied as it is. */
static uint8_t *say(const uint8_t *from, const uint8_t *end, uint8_t *to, int32_t *letters, uint8_t *plain)
{
    uint8_t high = 0, *begin = to;
    int32_t follow = 0;
    for (const uint8_t *at = from; at < end; at++)
        high |= *at, follow += (*at & 0xC0) == 0x80;
    *letters = (int32_t)(end - from) - follow;
    *plain = !(high & 0x80);
    if (!*plain) {
        memcpy(to, from, end - from);
        return to + (end - from);
    }
    while (from < end) {
        uint8_t kind = kinds[*from];
        if (!kind) {
            from = past_silence(from, end);
            continue;
        }
        *to = *from++ | (kind & CAPITAL ? 0x20 : 0);
        to += !(kind & BLANK && to == begin);
    }
    while (to > begin && to[-1] == ' ')
        to--;
    return to;
}

/* spoken(content, offsets) -> content, offsets, letters (int32), plain (uint8): of each text that is ASCII what is
   said, without case, punctuation and tags; of others the text itself, not `plain` */
static PyObject *spoken(PyObject *self, PyObject *args)
{
    Py_buffer content, offsets;
    Texts texts;
    PyObject *said = NULL, *ends = NULL, *letters = NULL, *plain = NULL, *made = NULL;
    if (!PyArg_ParseTuple(args, "y*y*", &content, &offsets))
        return NULL;
    if (!texts_of(&texts, &content, &offsets)) {
        PyErr_SetString(PyExc_ValueError, "the arrays do not fit together");
        goto done;
    }
    Py_ssize_t numbers = texts.count * (Py_ssize_t)sizeof(int32_t);
    said = PyBytes_FromStringAndSize(NULL, texts.offsets[texts.count] - texts.offsets[0]);
    ends = PyBytes_FromStringAndSize(NULL, numbers + (Py_ssize_t)sizeof(int32_t));
    letters = PyBytes_FromStringAndSize(NULL, numbers);
    plain = PyBytes_FromStringAndSize(NULL, texts.count);
    if (!said || !ends || !letters || !plain)
        goto done;
    uint8_t *first = (uint8_t *)PyBytes_AS_STRING(said), *to = first, *ascii = (uint8_t *)PyBytes_AS_STRING(plain);
    int32_t *end = (int32_t *)PyBytes_AS_STRING(ends), *letter = (int32_t *)PyBytes_AS_STRING(letters);
    Py_BEGIN_ALLOW_THREADS
    end[0] = 0;
    for (Py_ssize_t row = 0; row < texts.count; row++) {
        to = say(texts.content + texts.offsets[row], texts.content + texts.offsets[row + 1], to, letter + row, ascii + row);
        end[row + 1] = (int32_t)(to - first);
    }
    Py_END_ALLOW_THREADS
    made = PyTuple_Pack(4, said, ends, letters, plain);
done:
    Py_XDECREF(said);
    Py_XDECREF(ends);
    Py_XDECREF(letters);
    Py_XDECREF(plain);
    PyBuffer_Release(&content);
    PyBuffer_Release(&offsets);
    return made;
}

#define LENGTH 13
#define ODD 0x9E3779B97F4A7C15u
#define OTHER 0xD6E8FEB86659FD93u

/* As runs_in_numpy() has it: the first and the last eight bytes of a word, and its length. */
static uint64_t word_of(const uint8_t *content, Py_ssize_t begin, Py_ssize_t end, Py_ssize_t size)
{
    Py_ssize_t letters = end - begin, some = letters < 8 ? letters : 8;
    uint64_t head = 0, tail = 0;
    memcpy(&head, content + begin, begin + 8 <= size ? 8 : some);
    if (end >= 8)
        memcpy(&tail, content + end - 8, 8);
    else
        memcpy((uint8_t *)&tail + 8 - some, content + end - some, some);
    head &= ~(uint64_t)0 >> (64 - 8 * some), tail &= ~(uint64_t)0 << (64 - 8 * some);
    uint64_t word = head * ODD;
    word ^= word >> 32;
    word = (word + tail + ((uint64_t)letters << 40)) * OTHER;
    return word ^ word >> 29;
}

/* Return where the next blank is, or `end`. */
static Py_ssize_t blank_from(const uint8_t *content, Py_ssize_t at, Py_ssize_t end)
{
#ifdef __SSE2__
    for (; at + 16 <= end; at += 16) {
        __m128i letters = _mm_loadu_si128((const __m128i *)(content + at));
        int blanks = _mm_movemask_epi8(_mm_cmpeq_epi8(letters, _mm_set1_epi8(' ')));
        if (blanks)
            return at + __builtin_ctz((unsigned)blanks);
    }
#endif
    while (at < end && content[at] != ' ')
        at++;
    return at;
}

static int may_have_run(const uint8_t *text, Py_ssize_t size)
{
    Py_ssize_t blanks = 0;
    for (Py_ssize_t at = 0; at < size; at++)
        blanks += text[at] == ' ';
    return blanks >= LENGTH - 1;
}

typedef struct {
    uint64_t hash;
    int64_t row, begin, end;
} Run;

typedef struct {
    Run *at;
    Py_ssize_t count, room;
} AllRuns;

static int add_run(AllRuns *runs, Run run)
{
    if (runs->count == runs->room) {
        Py_ssize_t room = runs->room ? 2 * runs->room : 1024;
        Run *more = realloc(runs->at, room * sizeof *more);
        if (!more)
            return 0;
        runs->at = more, runs->room = room;
    }
    runs->at[runs->count++] = run;
    return 1;
}

static enum made find_runs(const Texts *texts, Py_ssize_t size, const uint8_t *maybe, int bits, AllRuns *runs,
                           uint64_t *whole)
{
    uint64_t highest = 1;
    for (int one = 1; one < LENGTH; one++)
        highest *= ODD;
    for (Py_ssize_t row = 0; row < texts->count; row++) {
        uint64_t words[LENGTH], hash = 0, power = 1, all = 0;
        Py_ssize_t begins[LENGTH], at = texts->offsets[row], end = texts->offsets[row + 1], oldest = 0, count = 0;
        whole[row] = 0;
        if (maybe && !may_have_run(texts->content + at, end - at))
            continue;
        for (; at < end; at++) {
            Py_ssize_t begin = at;
            at = blank_from(texts->content, at, end);
            if (at == begin)
                continue;
            uint64_t word = word_of(texts->content, begin, at, size);
            all += word * power, power *= ODD;
            hash = (count < LENGTH ? hash : hash - words[oldest] * highest) * ODD + word;
            words[oldest] = word, begins[oldest] = begin;
            oldest = oldest == LENGTH - 1 ? 0 : oldest + 1;
            if (++count < LENGTH)
                continue;
            uint64_t told = (hash ^ hash >> 31) * OTHER, place = told >> (64 - bits);
            if ((!maybe || maybe[place >> 3] >> (place & 7) & 1) &&
                !add_run(runs, (Run){told, row, begins[oldest], at}))
                return FULL;
        }
        whole[row] = all;
    }
    return WHOLE;
}

/* runs(content, offsets, maybe) -> runs of thirteen words (hash, text, begin, end: int64 each), and a hash of each
   whole text; if there is a bit in `maybe`, only runs whose hash begins with the number of one that is set, and no
   hash of a text too short for any */
static PyObject *runs(PyObject *self, PyObject *args)
{
    Py_buffer content, offsets, maybe;
    Texts texts;
    AllRuns all = {NULL, 0, 0};
    enum made made = ASTRAY;
    PyObject *whole = NULL, *found = NULL, *both = NULL;
    int bits = 0;
    if (!PyArg_ParseTuple(args, "y*y*y*", &content, &offsets, &maybe))
        return NULL;
    while (bits < 40 && ((Py_ssize_t)1 << bits) < 8 * maybe.len)
        bits++;
    if (texts_of(&texts, &content, &offsets) && (!maybe.len || 8 * maybe.len == (Py_ssize_t)1 << bits)) {
        whole = PyBytes_FromStringAndSize(NULL, texts.count * (Py_ssize_t)sizeof(uint64_t));
        if (!whole)
            goto done;
        uint64_t *hashes = (uint64_t *)PyBytes_AS_STRING(whole);
        Py_BEGIN_ALLOW_THREADS
        made = find_runs(&texts, content.len, maybe.len ? maybe.buf : NULL, bits, &all, hashes);
        Py_END_ALLOW_THREADS
    }
    if (made == WHOLE)
        found = PyBytes_FromStringAndSize((char *)all.at, all.count * (Py_ssize_t)sizeof *all.at);
    else if (made == FULL)
        PyErr_NoMemory();
    else
        PyErr_SetString(PyExc_ValueError, "the arrays do not fit together");
    both = found ? PyTuple_Pack(2, found, whole) : NULL;
done:
    free(all.at);
    Py_XDECREF(found);
    Py_XDECREF(whole);
    PyBuffer_Release(&content);
    PyBuffer_Release(&offsets);
    PyBuffer_Release(&maybe);
    return both;
}

static PyMethodDef methods[] = {{"near", near, METH_VARARGS, "Hold words against those behind them."},
                                {"fill", fill, METH_VARARGS, "Make a table of words by a chunk of their bits."},
                                {"look", look, METH_VARARGS, "Hold words against those of a table."},
                                {"sort", sort, METH_VARARGS, "Sort numbers by their upper bits."},
                                {"spoken", spoken, METH_VARARGS, "Tell what texts say, without case and punctuation."},
                                {"runs", runs, METH_VARARGS, "Tell the runs of words of texts."},
                                {NULL}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "shards._alike", NULL, 0, methods};

PyMODINIT_FUNC PyInit__alike(void)
{
    know_kinds();
    return PyModuleDef_Init(&module);
}
