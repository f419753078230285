/*
 * Progress bars, see progress.h. Redrawn at most ten times a second; the cursor stays below the
 * bars.
 */
#include "coordinator/progress.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/text.h"

#define BAR_CELLS 20u
#define REDRAW_NS 100000000u

struct bar {
    char name[32];
    uint64_t done, total, started_ns, last_ns;
};

struct weft_progress {
    uint32_t n, drawn; /* lines on the terminal now */
    uint64_t drawn_ns;
    struct bar bars[];
};

struct weft_progress *weft_progress_open(bool terminal, uint32_t n_devices)
{
    struct weft_progress *p = NULL;
    if (terminal)
        p = calloc(1, sizeof *p + n_devices * sizeof p->bars[0]);
    if (p != NULL)
        p->n = n_devices;
    return p;
}

static void erase(struct weft_progress *p)
{
    if (p->drawn > 0)
        fprintf(stderr, "\033[%uA\033[J", p->drawn);
    p->drawn = 0;
}

/* Bars that fit the terminal: what scrolled away could not be erased. A bar has 80 columns at most;
 * on a narrower terminal it would wrap, so there none is drawn. */
static uint32_t bars_that_fit(void)
{
    struct winsize size;
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) < 0 || size.ws_row == 0)
        return 1;
    return size.ws_col < 80 ? 0 : size.ws_row - 1u;
}

static void draw(struct weft_progress *p)
{
    uint32_t most = bars_that_fit();
    erase(p);
    for (uint32_t i = 0; i < p->n && p->drawn < most; i++) {
        const struct bar *b = &p->bars[i];
        char done[32], total[32], rate[32];
        if (b->total == 0)
            continue;
        uint64_t ns = b->last_ns - b->started_ns;
        unsigned cells = (unsigned)((double)b->done / (double)b->total * BAR_CELLS);
        fprintf(stderr, "%-12.12s ", b->name);
        for (unsigned k = 0; k < BAR_CELLS; k++)
            fputs(k < cells ? "▇" : "░", stderr);
        fprintf(stderr, " %3.0f %%  %s of %s", 100.0 * (double)b->done / (double)b->total,
                weft_format_size(done, sizeof done, b->done),
                weft_format_size(total, sizeof total, b->total));
        if (ns > 0) /* the first piece says nothing about speed yet */
            fprintf(stderr, "  %s/s",
                    weft_format_size(rate, sizeof rate,
                                     (uint64_t)((double)b->done * 1e9 / (double)ns)));
        fputs("\n", stderr);
        p->drawn++;
    }
    fflush(stderr);
}

void weft_progress_update(struct weft_progress *p, uint32_t device, const char *name, uint64_t done,
                          uint64_t total, uint64_t now_ns)
{
    if (p == NULL || device >= p->n)
        return;
    struct bar *b = &p->bars[device];
    if (b->total == 0) {
        snprintf(b->name, sizeof b->name, "%.31s", name);
        b->started_ns = now_ns;
    }
    b->done = done;
    b->total = total;
    b->last_ns = now_ns;
    if (now_ns - p->drawn_ns >= REDRAW_NS || done == total) {
        p->drawn_ns = now_ns;
        draw(p);
    }
}

void weft_progress_close(struct weft_progress *p)
{
    if (p != NULL)
        erase(p);
    free(p);
}
