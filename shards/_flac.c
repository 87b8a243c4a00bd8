/* A decoder of FLAC (RFC 9639) of one channel and 16 bits, for shards/fast_flac.py. It stops at the first frame whose
   checksums are not right; nothing is read or written out of bounds.

   Residuals are read and predicted from in one loop, so that a processor does both at a time. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

#define MOST 32 /* samples that a prediction is made from */
#define RARE(condition) __builtin_expect(!!(condition), 0)

#if defined(__GNUC__)
#define INLINE static inline __attribute__((always_inline))
#else
#define INLINE static inline
#endif

#define BYTES 16 /* that are looked up at a time */

static uint8_t crc8_of[256];
static uint16_t crc16_of[BYTES][256]; /* of each byte, with so many zeros behind it */

static void make_tables(void)
{
    for (int byte = 0; byte < 256; byte++) {
        int crc8 = byte, crc16 = byte << 8;
        for (int i = 0; i < 8; i++) {
            crc8 = crc8 << 1 ^ (crc8 >> 7 ? 0x107 : 0);
            crc16 = crc16 << 1 ^ (crc16 >> 15 ? 0x18005 : 0);
        }
        crc8_of[byte] = (uint8_t)crc8, crc16_of[0][byte] = (uint16_t)crc16;
    }
    for (int zeros = 1; zeros < BYTES; zeros++)
        for (int byte = 0; byte < 256; byte++) {
            int crc = crc16_of[zeros - 1][byte];
            crc16_of[zeros][byte] = (uint16_t)(crc << 8 ^ crc16_of[0][crc >> 8]);
        }
}

static int crc8(const uint8_t *at, const uint8_t *end)
{
    int crc = 0;
    while (at < end)
        crc = crc8_of[crc ^ *at++];
    return crc;
}

static int crc16(const uint8_t *at, const uint8_t *end)
{
    unsigned crc = 0;
    for (; end - at >= BYTES; at += BYTES) {
        unsigned next = crc16_of[BYTES - 1][at[0] ^ crc >> 8] ^ crc16_of[BYTES - 2][at[1] ^ (crc & 255)];
        for (int i = 2; i < BYTES; i++)
            next ^= crc16_of[BYTES - 1 - i][at[i]];
        crc = next;
    }
    while (at < end)
        crc = (crc << 8 & 0xFFFF) ^ crc16_of[0][crc >> 8 ^ *at++];
    return (int)crc;
}

typedef struct {
    const uint8_t *at, *end;
    uint64_t bits; /* those that come next, from the top */
    int left;      /* how many of them are sure, 63 at most; what is beyond is zero, or what follows */
} Reader;

INLINE void refill(Reader *r)
{
    if (RARE(r->end - r->at < 8)) {
        for (; r->left < 56 && r->at < r->end; r->left += 8)
            r->bits |= (uint64_t)*r->at++ << (56 - r->left);
        return;
    }
    uint64_t next;
    memcpy(&next, r->at, 8);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    next = __builtin_bswap64(next);
#endif
    r->bits |= next >> r->left;
    r->at += (63 - r->left) >> 3;
    r->left |= 56;
}

/* Where the next bits come from, at a whole byte. */
INLINE const uint8_t *place(const Reader *r)
{
    return r->at - r->left / 8;
}

INLINE void drop(Reader *r, int count)
{
    r->bits <<= count;
    r->left -= count;
}

/* The next 1 to 32 bits; -1 where there are no more. */
static int64_t get(Reader *r, int count)
{
    refill(r);
    if (r->left < count)
        return -1;
    uint64_t value = r->bits >> (64 - count);
    drop(r, count);
    return (int64_t)value;
}

/* The same, with a sign; `*good` is 0 where there are no more. */
static int32_t get_signed(Reader *r, int count, int *good)
{
    int64_t value = get(r, count);
    *good &= value >= 0;
    return (int32_t)((uint32_t)value << (32 - count)) >> (32 - count);
}

/* How many zeros come before the next one; -1 where there is none. */
static int64_t zeros(Reader *r)
{
    for (int64_t count = 0;;) {
        refill(r);
        if (!r->left)
            return -1;
        int here = r->bits ? __builtin_clzll(r->bits) : 64;
        if (here < r->left) {
            drop(r, here);
            drop(r, 1);
            return count + here;
        }
        count += r->left;
        drop(r, r->left);
    }
}

/* One residual in Rice code, of any length; `*good` is 0 where it is none. */
static uint32_t long_residual(Reader *r, int low, int *good)
{
    int64_t high = zeros(r), rest = low ? get(r, low) : 0;
    uint64_t value = ((uint64_t)high << low) + (uint64_t)rest;
    if (high < 0 || rest < 0 || high > UINT32_MAX || value > UINT32_MAX)
        *good = 0;
    return (uint32_t)value;
}

/* What a sample is predicted to be from those before `here`, of which `newest` is the last. */
INLINE uint32_t predicted(const int32_t *here, uint32_t newest, const int32_t *weights, int order, int shift, int wide)
{
    if (!order)
        return 0;
    if (wide) {
        int64_t sum = (int64_t)weights[0] * (int32_t)newest;
        for (int i = 1; i < order; i++)
            sum += (int64_t)weights[i] * here[-1 - i];
        return (uint32_t)(sum >> shift);
    }
    uint32_t sum = 0;
    for (int i = 1; i < order; i++)
        sum += (uint32_t)weights[i] * (uint32_t)here[-1 - i];
    return (uint32_t)((int32_t)(sum + (uint32_t)weights[0] * newest) >> shift);
}

/* The samples of a subframe from its residuals on, `count` with those `order` that are there already. */
INLINE int restored(Reader *from, int32_t *wave, int count, int order, const int32_t *given, int shift, int wide)
{
    Reader r = *from;
    int32_t weights[MOST];
    uint32_t newest = order ? (uint32_t)wave[order - 1] : 0; /* not from memory, where it would be waited for */
    int good = 1, at = order;
    memcpy(weights, given, order * sizeof(*weights));
    int method = (int)get(&r, 2), parts = (int)get(&r, 4), size = method == 1 ? 5 : 4;
    if (method < 0 || method > 1 || parts < 0 || count >> parts << parts != count || count >> parts < order)
        return 0;
    for (int part = 0; part < 1 << parts; part++) {
        int end = (part + 1) * (count >> parts), low = (int)get(&r, size);
        if (low < 0)
            return 0;
        if (low == (1 << size) - 1) { /* not coded */
            int raw = (int)get(&r, 5);
            if (raw < 0)
                return 0;
            for (; at < end; at++) {
                newest = predicted(wave + at, newest, weights, order, shift, wide);
                newest += (uint32_t)(raw ? get_signed(&r, raw, &good) : 0);
                wave[at] = (int32_t)newest;
            }
            if (!good)
                return 0;
            continue;
        }
        Reader s = r; /* one that no function is told of can be in registers */
        while (at < end) {
            refill(&s);
            for (int stop = end - at < 4 ? end : at + 4; at < stop; at++) {
                int high = __builtin_clzll(s.bits | 1), all = high + 1 + low;
                uint32_t value;
                if (RARE(all > s.left)) {
                    r = s;
                    value = long_residual(&r, low, &good);
                    s = r;
                    if (!good)
                        return 0;
                } else {
                    value = (uint32_t)high << low | (uint32_t)(s.bits << high << 1 >> 1 >> (63 - low));
                    drop(&s, all);
                }
                newest = predicted(wave + at, newest, weights, order, shift, wide);
                newest += (value >> 1) ^ (0 - (value & 1));
                wave[at] = (int32_t)newest;
            }
        }
        r = s;
    }
    *from = r;
    return 1;
}

/* The same, with a loop of its own for each order that encoders use. */
static int restore(Reader *r, int32_t *wave, int count, int order, const int32_t *weights, int shift, int wide)
{
    if (wide)
        return restored(r, wave, count, order, weights, shift, 1);
    switch (order) {
#define CASE(N)                                                                                                        \
    case N:                                                                                                            \
        return restored(r, wave, count, N, weights, shift, 0);
        CASE(0) CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12)
#undef CASE
    }
    return restored(r, wave, count, order, weights, shift, 0);
}

static const int32_t FIXED[5][4] = {{0}, {1}, {2, -1}, {3, -3, 1}, {4, -6, 4, -1}};

static int subframe(Reader *r, int32_t *wave, int count)
{
    int64_t head = get(r, 8);
    int bits = 16, wasted = 0, good = 1, order, kind = (int)(head >> 1);
    if (head < 0 || head >> 7)
        return 0;
    if (head & 1) {
        int64_t more = zeros(r);
        if (more < 0 || more > 14)
            return 0;
        wasted = (int)more + 1;
        bits -= wasted;
    }
    if (kind == 0) {
        int32_t same = get_signed(r, bits, &good);
        for (int i = 0; i < count; i++)
            wave[i] = same;
    } else if (kind == 1) {
        for (int i = 0; i < count; i++)
            wave[i] = get_signed(r, bits, &good);
    } else if ((kind >= 8 && kind <= 12) || kind >= 32) {
        order = kind < 32 ? kind - 8 : kind - 31;
        if (order > count)
            return 0;
        for (int i = 0; i < order; i++)
            wave[i] = get_signed(r, bits, &good);
        if (kind < 32) {
            good = good && restore(r, wave, count, order, FIXED[order], 0, 0);
        } else {
            int32_t weights[MOST];
            int precision = (int)get(r, 4) + 1, shift = precision < 1 ? -1 : get_signed(r, 5, &good);
            if (precision < 1 || precision > 15 || shift < 0)
                return 0;
            uint32_t loud = 0;
            for (int i = 0; i < order; i++) {
                weights[i] = get_signed(r, precision, &good);
                loud += (uint32_t)(weights[i] < 0 ? -weights[i] : weights[i]);
            }
            /* Samples have 16 bits at most: with such weights no sum of theirs has more than 32. */
            good = good && restore(r, wave, count, order, weights, shift, loud >= 1 << 16);
        }
    } else {
        return 0;
    }
    for (int i = 0; wasted && i < count; i++)
        wave[i] = (int32_t)((uint32_t)wave[i] << wasted);
    return good;
}

/* The head of a frame: how many samples it has, 0 if it is none, or not of one channel and 16 bits. */
static int frame_length(Reader *r)
{
    const uint8_t *start = place(r);
    int64_t head = get(r, 32);
    if (head < 0 || head >> 17 != 0x7FFC)
        return 0;
    int size = head >> 12 & 15, rate = head >> 8 & 15, channels = head >> 4 & 15, bits = head >> 1 & 7;
    if (channels || (bits && bits != 4) || head & 1 || rate == 15)
        return 0;
    int64_t number = get(r, 8);
    int more = number < 0x80 ? 0 : number < 0xC0 ? -1 : number < 0xE0 ? 1 : number < 0xF0 ? 2 : number < 0xF8 ? 3
               : number < 0xFC ? 4 : number < 0xFE ? 5 : number < 0xFF ? 6 : -1;
    if (number < 0 || more < 0)
        return 0;
    while (more--)
        if (get(r, 8) >> 6 != 2)
            return 0;
    int64_t count = size == 1 ? 192 : size >= 8 ? 256 << (size - 8) : size >= 2 && size <= 5 ? 576 << (size - 2)
                    : size == 6 ? get(r, 8) + 1 : size == 7 ? get(r, 16) + 1 : 0;
    if (rate >= 12 && get(r, rate == 12 ? 8 : 16) < 0)
        return 0;
    int crc = crc8(start, place(r));
    return get(r, 8) != crc ? 0 : (int)count;
}

/* Where the frames begin, and how long they are at most; NULL if it is no file of one channel and 16 bits. */
static const uint8_t *frames(const uint8_t *data, Py_ssize_t length, int *longest)
{
    const uint8_t *end = data + length, *at = data + 4;
    if (length < 42 || memcmp(data, "fLaC", 4) || (data[4] & 0x7F) || (data[20] & 0x0F) || data[21] >> 4 != 15)
        return NULL;
    *longest = data[10] << 8 | data[11];
    for (int last = 0; !last;) {
        if (end - at < 4)
            return NULL;
        Py_ssize_t size = at[1] << 16 | at[2] << 8 | at[3];
        last = at[0] >> 7;
        if (end - at - 4 < size)
            return NULL;
        at += 4 + size;
    }
    return at;
}

static Py_ssize_t decoded(const uint8_t *data, Py_ssize_t length, int16_t *out, Py_ssize_t samples)
{
    int longest;
    const uint8_t *at = frames(data, length, &longest);
    int32_t *wave = at && longest ? malloc(longest * sizeof(*wave)) : NULL;
    Reader r = {at, data + length, 0, 0};
    Py_ssize_t done = 0;
    while (wave && done < samples) {
        const uint8_t *start = place(&r);
        int count = frame_length(&r), outside = 0;
        if (count < 1 || count > longest || !subframe(&r, wave, count))
            break;
        drop(&r, r.left & 7);
        int crc = crc16(start, place(&r));
        if (get(&r, 16) != crc)
            break;
        if (count > samples - done)
            count = (int)(samples - done);
        for (int i = 0; i < count; i++) {
            out[done + i] = (int16_t)wave[i];
            outside |= wave[i] ^ out[done + i];
        }
        if (outside)
            break;
        done += count;
    }
    free(wave);
    return done;
}

/* decode(data, out) -> how many samples of `out` are those of the file */
static PyObject *decode(PyObject *self, PyObject *args)
{
    Py_buffer data, out;
    if (!PyArg_ParseTuple(args, "y*w*", &data, &out))
        return NULL;
    Py_ssize_t done;
    Py_BEGIN_ALLOW_THREADS
    done = decoded(data.buf, data.len, out.buf, out.len / (Py_ssize_t)sizeof(int16_t));
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&data);
    PyBuffer_Release(&out);
    return PyLong_FromSsize_t(done);
}

static PyMethodDef methods[] = {{"decode", decode, METH_VARARGS, "Decode a FLAC; see shards/fast_flac.py."}, {NULL}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "shards._flac", NULL, 0, methods};

PyMODINIT_FUNC PyInit__flac(void)
{
    make_tables();
    return PyModuleDef_Init(&module);
}
