/* The transforms of shards/spectra.py, and the moments of shards/fingerprint.py. Both have the same in numpy, which
   says what they are for, and the very same bits come out: nothing here may be reordered or contracted. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#define WINDOW 512
#define HALF (WINDOW / 2)
#define LANES 4 /* windows transformed side by side */

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define EVERY_MACHINE __attribute__((target_clones("avx2", "default")))
#else
#define EVERY_MACHINE
#endif

typedef struct {
    double real[HALF * LANES], imaginary[HALF * LANES];
} Halves;

/* One stage of transforms of `length`, `wide` values side by side in each of their places. */
EVERY_MACHINE
static void quarter(const Halves *from, Halves *to, Py_ssize_t length, const double *turns)
{
    Py_ssize_t fourth = length / 4, wide = HALF * LANES / length, apart = WINDOW / length;
    for (Py_ssize_t at = 0; at < fourth; at++) {
        const double *a = from->real + at * wide, *b = a + fourth * wide, *c = b + fourth * wide,
                     *d = c + fourth * wide;
        const double *p = from->imaginary + at * wide, *q = p + fourth * wide, *r = q + fourth * wide,
                     *s = r + fourth * wide;
        double *restrict x0 = to->real + 4 * at * wide, *restrict y0 = to->imaginary + 4 * at * wide;
        double *restrict x1 = x0 + wide, *restrict x2 = x1 + wide, *restrict x3 = x2 + wide;
        double *restrict y1 = y0 + wide, *restrict y2 = y1 + wide, *restrict y3 = y2 + wide;
        double u1 = turns[at * apart], v1 = turns[WINDOW + at * apart];
        double u2 = turns[2 * at * apart], v2 = turns[WINDOW + 2 * at * apart];
        double u3 = turns[3 * at * apart], v3 = turns[WINDOW + 3 * at * apart];
        for (Py_ssize_t i = 0; i < wide; i++) {
            double ac = a[i] + c[i], bd = b[i] + d[i], pr = p[i] + r[i], qs = q[i] + s[i];
            double a_c = a[i] - c[i], b_d = b[i] - d[i], p_r = p[i] - r[i], q_s = q[i] - s[i];
            double e = a_c + q_s, f = p_r - b_d, g = ac - bd, h = pr - qs, k = a_c - q_s, l = p_r + b_d;
            x0[i] = ac + bd, y0[i] = pr + qs;
            x1[i] = e * u1 - f * v1, y1[i] = e * v1 + f * u1;
            x2[i] = g * u2 - h * v2, y2[i] = g * v2 + h * u2;
            x3[i] = k * u3 - l * v3, y3[i] = k * v3 + l * u3;
        }
    }
}

EVERY_MACHINE
static void banded(const Halves *of, const double *turns, const int64_t *edges, Py_ssize_t count, double *out)
{
    for (Py_ssize_t band = 0; band < count; band++) {
        double total[LANES] = {0};
        for (Py_ssize_t k = edges[band]; k < edges[band + 1]; k++) {
            const double *zr = of->real + k * LANES, *zi = of->imaginary + k * LANES;
            const double *nr = of->real + (HALF - k) % HALF * LANES, *ni = of->imaginary + (HALF - k) % HALF * LANES;
            double u = turns[k], v = turns[WINDOW + k];
            for (Py_ssize_t i = 0; i < LANES; i++) {
                double er = zr[i] + nr[i], ei = zi[i] - ni[i], or = zi[i] + ni[i], oi = nr[i] - zr[i];
                double x = er + (u * or - v * oi), y = ei + (u * oi + v * or);
                total[i] += x * x + y * y;
            }
        }
        for (Py_ssize_t i = 0; i < LANES; i++)
            out[i * count + band] = 0.25 * total[i];
    }
}

/* Weigh the samples of one window, into one lane. */
static void load(const int16_t *pcm, Py_ssize_t fold, double middle, const double *taper, double *real,
                 double *imaginary)
{
    for (Py_ssize_t i = 0; i < HALF; i++, pcm += 2 * fold) {
        double first = fold == 2 ? pcm[0] + pcm[1] : pcm[0], second = fold == 2 ? pcm[2] + pcm[3] : pcm[1];
        real[i * LANES] = (first - middle) * taper[2 * i];
        imaginary[i * LANES] = (second - middle) * taper[2 * i + 1];
    }
}

/* bands(pcm, starts, fold, middle, taper, turns, edges, out) */
static PyObject *bands(PyObject *self, PyObject *args)
{
    Py_buffer pcm, starts, taper, turns, edges, out;
    Py_ssize_t fold;
    double middle;
    if (!PyArg_ParseTuple(args, "y*y*ndy*y*y*w*", &pcm, &starts, &fold, &middle, &taper, &turns, &edges, &out))
        return NULL;
    const Py_ssize_t number = sizeof(double);
    const int64_t *first = starts.buf, *edge = edges.buf;
    Py_ssize_t windows = starts.len / (Py_ssize_t)sizeof(int64_t), count = edges.len / (Py_ssize_t)sizeof(int64_t) - 1;
    Py_ssize_t last = pcm.len / (Py_ssize_t)sizeof(int16_t) - WINDOW * fold;
    int fits = (fold == 1 || fold == 2) && count > 0 && taper.len == WINDOW * number &&
               turns.len == 2 * WINDOW * number && out.len == windows * count * number && edge[0] >= 0 &&
               edge[count] <= HALF;
    for (Py_ssize_t i = 0; fits && i < windows; i++)
        fits = first[i] >= 0 && first[i] <= last;
    for (Py_ssize_t i = 0; fits && i < count; i++)
        fits = edge[i] <= edge[i + 1];
    if (fits) {
        Py_BEGIN_ALLOW_THREADS
        for (Py_ssize_t at = 0; at < windows; at += LANES) {
            Halves these, those;
            double told[LANES * HALF];
            for (Py_ssize_t i = 0; i < LANES; i++) /* what is left of the lanes at the end does the last once more */
                load((int16_t *)pcm.buf + first[at + i < windows ? at + i : windows - 1], fold, middle, taper.buf,
                     these.real + i, these.imaginary + i);
            for (Py_ssize_t length = HALF; length > 1; length /= 16) {
                quarter(&these, &those, length, turns.buf);
                quarter(&those, &these, length / 4, turns.buf);
            }
            banded(&these, turns.buf, edge, count, told);
            for (Py_ssize_t i = 0; i < LANES && at + i < windows; i++)
                memcpy((double *)out.buf + (at + i) * count, told + i * count, count * number);
        }
        Py_END_ALLOW_THREADS
    }
    Py_buffer *all[] = {&pcm, &starts, &taper, &turns, &edges, &out};
    for (size_t one = 0; one < sizeof(all) / sizeof(*all); one++)
        PyBuffer_Release(all[one]);
    if (!fits) {
        PyErr_SetString(PyExc_ValueError, "the arrays of bands() do not fit together");
        return NULL;
    }
    Py_RETURN_NONE;
}

#define FRAME 160
#define REACH 50
#define SIDE 5
#define FAINT 1e-3

/* moments(tens, level, out) -> how many: the samples at which the smoothed energy is greater than all around. */
static PyObject *moments(PyObject *self, PyObject *args)
{
    Py_buffer tens, smooth, out;
    if (!PyArg_ParseTuple(args, "y*w*w*", &tens, &smooth, &out))
        return NULL;
    Py_ssize_t count = tens.len / (Py_ssize_t)sizeof(double), found = 0;
    int fits = smooth.len == tens.len && out.len == count * (Py_ssize_t)sizeof(int64_t);
    if (fits) {
        const double *energy = tens.buf;
        double *level = smooth.buf, most = 0;
        for (Py_ssize_t n = 0; n < count; n++) {
            double sum = (SIDE + 1) * energy[n];
            for (Py_ssize_t k = 1; k <= SIDE; k++)
                sum += (SIDE + 1 - k) * ((n >= k ? energy[n - k] : 0) + (n + k < count ? energy[n + k] : 0));
            level[n] = sum;
            most = sum > most ? sum : most;
        }
        for (Py_ssize_t n = 1; n < count - 1; n++) {
            double here = level[n], before = level[n - 1], after = level[n + 1];
            if (here < before || here < after || here <= most * FAINT)
                continue;
            Py_ssize_t other = n > REACH ? n - REACH : 0, end = n + REACH < count ? n + REACH : count - 1;
            while (other <= end && level[other] <= here)
                other++;
            if (other <= end)
                continue;
            double bend = 2 * here - before - after;
            double top = (after - before) / (2 * (bend > 1 ? bend : 1));
            ((int64_t *)out.buf)[found++] = (int64_t)rint((n + 0.5 + top) * FRAME);
        }
    }
    PyBuffer_Release(&tens);
    PyBuffer_Release(&smooth);
    PyBuffer_Release(&out);
    if (!fits) {
        PyErr_SetString(PyExc_ValueError, "the arrays of moments() do not fit together");
        return NULL;
    }
    return PyLong_FromSsize_t(found);
}

static PyMethodDef methods[] = {
    {"bands", bands, METH_VARARGS, "Fill in the power of bands; see shards/spectra.py."},
    {"moments", moments, METH_VARARGS, "Fill in the moments of a clip; see shards/fingerprint.py."},
    {NULL},
};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "shards._spectra", NULL, 0, methods};

PyMODINIT_FUNC PyInit__spectra(void)
{
    return PyModuleDef_Init(&module);
}
