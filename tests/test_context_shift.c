/*
 * Context shift as planned: the fewest turns that make room, never more counts than needed, and
 * always what fits.
 */
#include <stdlib.h>

#include "coordinator/context_shift.h"
#include "tests/harness.h"

#define TURNS_MAX 200

struct talk {
    uint32_t fixed;             /* tokens of system prompt and newest turn */
    uint32_t turns[TURNS_MAX];  /* tokens of each, oldest first */
    uint32_t n, asked, fail_at; /* fail_at: number of the count that fails; 0: none */
};

static int count(void *arg, uint32_t dropped, uint32_t *ret, weft_err *err)
{
    struct talk *t = arg;
    ck_assert(dropped >= 1 && dropped <= t->n);
    if (++t->asked == t->fail_at)
        return weft_fail(err, WEFT_ENOMEM, "no memory");
    *ret = t->fixed;
    for (uint32_t i = dropped; i < t->n; i++)
        *ret += t->turns[i];
    return 0;
}

static struct weft_shift plan(struct talk *t, uint32_t context, uint32_t answer, uint32_t predict)
{
    struct weft_shift s = {77, 77};
    weft_err err = {0};
    const struct weft_shift_ask ask = {.context = context,
                                       .turns = t->n,
                                       .answer = answer,
                                       .predict = predict,
                                       .tokens = count,
                                       .arg = t};
    ck_assert_msg(weft_shift_plan(&ask, &s, &err) == 0, "%s", err.text);
    return s;
}

START_TEST(fewest_turns)
{
    static const struct {
        uint32_t context, answer, predict, turns, tokens;
    } cases[] = {
        /* the talk: 10 fixed, turns of 10, 20, 30, 40 */
        {100, 0, 0, 3, 50},  {100, 0, 10, 2, 80}, {120, 0, 0, 2, 80},  {134, 0, 0, 1, 100},
        {133, 0, 0, 1, 100}, {132, 0, 0, 2, 80},  {101, 0, 1, 1, 100}, {100, 40, 0, 4, 10},
        {100, 25, 0, 3, 50}, {60, 0, 0, 4, 10},   {60, 0, 10, 3, 50},  {11, 0, 0, 4, 10},
        {40, 29, 0, 4, 10},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct talk t = {.fixed = 10, .turns = {10, 20, 30, 40}, .n = 4};
        struct weft_shift s = plan(&t, cases[i].context, cases[i].answer, cases[i].predict);
        ck_assert_msg(s.turns == cases[i].turns && s.tokens == cases[i].tokens,
                      "case %zu: found %u turns, %u tokens", i, s.turns, s.tokens);
    }
}
END_TEST

START_TEST(nothing_helps)
{
    struct talk t = {.fixed = 10, .turns = {10, 20}, .n = 2};
    ck_assert_uint_eq(plan(&t, 10, 0, 0).turns, 0); /* not one position would get free */
    ck_assert_uint_eq(plan(&t, 40, 30, 0).turns, 0);
    ck_assert_uint_eq(plan(&t, 40, UINT32_MAX, 0).turns, 0);
    t.asked = 0;
    t.n = 0; /* the newest turn alone */
    ck_assert_uint_eq(plan(&t, 1000, 0, 0).turns, 0);
    ck_assert_uint_eq(t.asked, 0);
}
END_TEST

START_TEST(failures_are_handed_on)
{
    for (uint32_t at = 1; at <= 3; at++) {
        struct talk t = {.fixed = 10, .turns = {10, 10, 10, 10, 10, 10, 10}, .n = 7, .fail_at = at};
        struct weft_shift s;
        weft_err err = {0};
        const struct weft_shift_ask ask = {.context = 64, .turns = t.n, .tokens = count, .arg = &t};
        ck_assert_int_eq(weft_shift_plan(&ask, &s, &err), -WEFT_ENOMEM);
        ck_assert_uint_eq(s.turns, 0);
        ck_assert_str_eq(err.text, "no memory");
    }
}
END_TEST

/* Against the definition, for any conversation. */
START_TEST(any_talk)
{
    uint64_t random = weft_test_seed();
    for (int round = 0; round < 2000; round++) {
        struct talk t = {.fixed = (uint32_t)(weft_test_random(&random) % 300)};
        t.n = (uint32_t)(weft_test_random(&random) % TURNS_MAX);
        for (uint32_t i = 0; i < t.n; i++)
            t.turns[i] = (uint32_t)(weft_test_random(&random) % 40);
        const uint32_t context = 1 + (uint32_t)(weft_test_random(&random) % 1000);
        const uint32_t answer = (uint32_t)(weft_test_random(&random) % 100);
        const uint32_t predict = (uint32_t)(weft_test_random(&random) % 400) / 2;
        struct weft_shift s = plan(&t, context, answer, predict);
        ck_assert_uint_le(t.asked, 9); /* all turns, then halves of 200 */
        uint32_t room = context / 4, tokens = 0, k = 1;
        room = predict > 0 && predict < room ? predict : room > 0 ? room : 1;
        for (; k <= t.n; k++) {
            ck_assert_int_eq(count(&t, k, &tokens, NULL), 0);
            if (tokens + answer + room <= context)
                break;
        }
        if (k > t.n) /* none leaves so much: all, or nothing */
            k = t.n > 0 && tokens + answer + 1 <= context ? t.n : 0;
        ck_assert_msg(s.turns == k, "context %u: found %u, expected %u of %u", context, s.turns, k,
                      t.n);
        ck_assert(k == 0 || s.tokens == tokens);
    }
}
END_TEST

START_TEST(half_of_a_text)
{
    ck_assert_uint_eq(weft_shift_half(64, 1), 32);
    ck_assert_uint_eq(weft_shift_half(64, 0), 32);
    ck_assert_uint_eq(weft_shift_half(63, 0), 32);
    ck_assert_uint_eq(weft_shift_half(2, 1), 1);
    ck_assert_uint_eq(weft_shift_half(1, 1), 0);
    ck_assert_uint_eq(weft_shift_half(1, 0), 1);
    ck_assert_uint_eq(weft_shift_half(0, 1), 0);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("context_shift");
    TCase *t = tcase_create("plan");
    tcase_add_test(t, fewest_turns);
    tcase_add_test(t, nothing_helps);
    tcase_add_test(t, failures_are_handed_on);
    tcase_add_test(t, any_talk);
    tcase_add_test(t, half_of_a_text);
    suite_add_tcase(s, t);
    return weft_test_main(s);
}
