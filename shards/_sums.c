/* The sums of shards/sums.py, which has the same in numpy and says what they are for. All are sums of integers, and
   so the same in any order. A product of two samples has 31 bits, too many to add up in 32: one factor is split into
   two bytes, both with a sign, and no sum is longer than a piece. A compiler makes that one instruction for eight
   products or sixteen (pmaddwd, smlal). */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

#define HOP 1600
#define FRAME 320
#define TEN 160
#define BOX 32
#define PIECE 320
#define LAGS 4
#define BOXES (HOP / BOX)
#define FRAMES (HOP / FRAME)
#define TENS (HOP / TEN)
#define BOX_LAGS 5
#define FRAME_LAGS 4
#define PRODUCTS (LAGS + BOX_LAGS + 1 + FRAME_LAGS + 1)

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define EVERY_MACHINE __attribute__((target_clones("avx2", "default")))
#else
#define EVERY_MACHINE
#endif

/* A hop with what lies before and behind it: the lags reach two samples to the left and two to the right. */
typedef struct {
    int16_t wave[LAGS / 2 + HOP + LAGS / 2], upper[LAGS / 2 + HOP + LAGS / 2], lower[LAGS / 2 + HOP + LAGS / 2];
} Hop;

EVERY_MACHINE
static void split(const int16_t *wave, int16_t *upper, int16_t *lower, Py_ssize_t count)
{
    for (Py_ssize_t i = 0; i < count; i++) {
        lower[i] = (int8_t)wave[i];
        upper[i] = (int16_t)((wave[i] - lower[i]) >> 8);
    }
}

EVERY_MACHINE
static int64_t product(const int16_t *upper, const int16_t *lower, const int16_t *other, Py_ssize_t count)
{
    int64_t all = 0;
    for (Py_ssize_t start = 0; start < count; start += PIECE) {
        int32_t high = 0, low = 0;
        for (Py_ssize_t i = start; i < start + PIECE; i++) {
            high += (int32_t)upper[i] * other[i];
            low += (int32_t)lower[i] * other[i];
        }
        all += 256 * (int64_t)high + low;
    }
    return all;
}

/* The energies of the first `count` halves of the frames of a hop: product(), with a shorter piece. */
EVERY_MACHINE
static void energies_of(const int16_t *upper, const int16_t *lower, const int16_t *wave, Py_ssize_t count, double *out)
{
    for (Py_ssize_t one = 0; one < count; one++) {
        int32_t high = 0, low = 0;
        for (Py_ssize_t i = one * TEN; i < (one + 1) * TEN; i++) {
            high += (int32_t)upper[i] * wave[i];
            low += (int32_t)lower[i] * wave[i];
        }
        out[one] = (double)(256 * (int64_t)high + low);
    }
}

/* The sums of a hop's boxes and of its frames. */
EVERY_MACHINE
static void add(const int16_t *wave, int32_t *box, int32_t *frame)
{
    for (Py_ssize_t one = 0; one < BOXES; one++) {
        int32_t all = 0;
        for (Py_ssize_t i = 0; i < BOX; i++)
            all += wave[one * BOX + i];
        box[one] = all;
    }
    for (Py_ssize_t one = 0; one < FRAMES; one++) {
        frame[one] = 0;
        for (Py_ssize_t i = 0; i < FRAME / BOX; i++)
            frame[one] += box[one * (FRAME / BOX) + i];
    }
}

/* Copy the samples from `start` on; before the first is `first`, behind the last is `last`. */
static void copy(const int16_t *pcm, Py_ssize_t samples, Py_ssize_t start, Py_ssize_t count, int16_t first, int16_t last,
                 int16_t *wave)
{
    Py_ssize_t at = 0;
    for (; at < count && start + at < 0; at++)
        wave[at] = first;
    if (at < count && start + at < samples) {
        Py_ssize_t here = samples - start - at < count - at ? samples - start - at : count - at;
        memcpy(wave + at, pcm + start + at, here * sizeof(int16_t));
        at += here;
    }
    for (; at < count; at++)
        wave[at] = last;
}

/* Products of `count` sums with those up to `lags` before and behind them. */
static double *neighbours(const int32_t *sums, Py_ssize_t count, Py_ssize_t lags, double *out)
{
    for (Py_ssize_t lag = 0; lag <= lags; lag++) {
        int64_t all = 0;
        for (Py_ssize_t i = 0; i < count; i++)
            all += (int64_t)sums[i] * (lag ? sums[i - lag] + sums[i + lag] : sums[i]);
        *out++ = (double)all;
    }
    return out;
}

/* sums(pcm, start, count, first, last, boxes, frame_sums, tens, products), of `count` samples from `start` on: sums
   of BOX and of FRAME samples, of the whole hops and of one hop to either side; the energies of all whole halves of
   frames; and of each whole hop the products with itself 1 to 4 samples, 0 to 5 boxes and 0 to 4 frames apart. */
static PyObject *sums(PyObject *self, PyObject *args)
{
    Py_buffer pcm, boxes, frame_sums, tens, products;
    short first, last;
    Py_ssize_t start, count;
    if (!PyArg_ParseTuple(args, "y*nnhhw*w*w*w*", &pcm, &start, &count, &first, &last, &boxes, &frame_sums, &tens,
                          &products))
        return NULL;
    const int16_t *samples = pcm.buf;
    Py_ssize_t length = pcm.len / (Py_ssize_t)sizeof(int16_t), hops = count / HOP, energies = count / TEN;
    const Py_ssize_t number = sizeof(double), small = sizeof(int32_t);
    int fits = start >= 0 && count >= 0 && start <= length && count <= length - start &&
               boxes.len == (hops + 2) * BOXES * small && frame_sums.len == (hops + 2) * FRAMES * small &&
               tens.len == energies * number && products.len == hops * PRODUCTS * number;
    if (fits) {
        int32_t *box = boxes.buf, *wide = frame_sums.buf;
        double *ten = tens.buf, *product_of = products.buf;
        Hop hop;
        const int16_t *wave = hop.wave + LAGS / 2, *upper = hop.upper + LAGS / 2, *lower = hop.lower + LAGS / 2;
        Py_BEGIN_ALLOW_THREADS
        for (Py_ssize_t at = -1; at <= hops; at++) {
            copy(samples, length, start + at * HOP - LAGS / 2, HOP + LAGS, first, last, hop.wave);
            add(wave, box, wide);
            box += BOXES, wide += FRAMES;
            if (at < 0)
                continue;
            split(hop.wave, hop.upper, hop.lower, HOP + LAGS);
            Py_ssize_t left = energies - at * TENS;
            energies_of(upper, lower, wave, left < TENS ? left : TENS, ten + at * TENS);
            for (Py_ssize_t lag = 1; at < hops && lag <= LAGS; lag++)
                product_of[at * PRODUCTS + lag - 1] =
                    (double)product(upper - lag / 2, lower - lag / 2, wave - lag / 2 + lag, HOP);
        }
        for (Py_ssize_t at = 0; at < hops; at++) {
            double *out = product_of + at * PRODUCTS + LAGS;
            out = neighbours((int32_t *)boxes.buf + (at + 1) * BOXES, BOXES, BOX_LAGS, out);
            neighbours((int32_t *)frame_sums.buf + (at + 1) * FRAMES, FRAMES, FRAME_LAGS, out);
        }
        Py_END_ALLOW_THREADS
    }
    Py_buffer *all[] = {&pcm, &boxes, &frame_sums, &tens, &products};
    for (size_t one = 0; one < sizeof(all) / sizeof(*all); one++)
        PyBuffer_Release(all[one]);
    if (!fits) {
        PyErr_SetString(PyExc_ValueError, "the arrays of sums() do not fit together");
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {{"sums", sums, METH_VARARGS, "Sum a clip; see shards/sums.py."}, {NULL}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "shards._sums", NULL, 0, methods};

PyMODINIT_FUNC PyInit__sums(void)
{
    return PyModuleDef_Init(&module);
}
