/*
 * Picking and ordering elements by an attribute: what filters of lists share.
 */
#ifndef WEFT_COORDINATOR_JINJA_SELECT_H
#define WEFT_COORDINATOR_JINJA_SELECT_H

#include "coordinator/jinja_run.h"

struct jinja_sort {
    struct jinja_value attribute;        /* none: the items themselves */
    const struct jinja_value *otherwise; /* for items without it; NULL or undefined: none */
    bool reverse, case_sensitive;
};

/* item.a.b of attribute 'a.b', item[n] of a number, the item itself of none; `otherwise` (may be
 * NULL) where that is undefined. */
int jinja_attribute(struct jinja_run *run, const struct jinja_value *item,
                    const struct jinja_value *attribute, const struct jinja_value *otherwise,
                    struct jinja_value *ret) WEFT_MUST_USE;
/* What an item is ordered by: the attribute, texts in lower case unless case counts. */
int jinja_sort_key(struct jinja_run *run, const struct jinja_value *item,
                   const struct jinja_sort *how, struct jinja_value *ret) WEFT_MUST_USE;
/* Stable, in place, O(n log n) comparisons. */
int jinja_sort(struct jinja_run *run, struct jinja_list *list,
               const struct jinja_sort *how) WEFT_MUST_USE;

#endif
