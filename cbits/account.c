/* The account of time: a clock that is read once at each change of activity. */
#include "account.h"

#include "engine.h"
#include "host.h"

/* Charge the time since the last change to the present activity, which ended at `at_ns`. */
static void change(struct dwc_account *a, enum dwc_activity to, uint64_t at_ns)
{
	if (a->since_ns && at_ns > a->since_ns) {
		a->ns[a->now] += at_ns - a->since_ns;
		a->since_ns = at_ns;
	}
	a->now = to;
}

/* Whether the present activity can give way to another one. */
static int may_change(const struct dwc_account *a, enum dwc_activity to)
{
	return a->now < DWC_AT_START || to == DWC_AT_TICK_WAIT || (a->now == DWC_AT_ROLLBACK && to == DWC_AT_REPLAY);
}

/* The caller lets the guest run: time counts from now on. */
void dwc_account_begin(struct dwc_engine *e)
{
	e->account.since_ns = dwc_now_ns();
}

/* Time counts no more. What Python has done since the last call of the core was for an end, if the guest has ended. */
void dwc_account_end(struct dwc_engine *e, int guest_ended)
{
	struct dwc_account *a = &e->account;

	if (guest_ended && a->now == DWC_AT_PYTHON)
		a->now = DWC_AT_END;
	change(a, a->now, dwc_now_ns());
	a->since_ns = 0;
}

/* From now on it is `to`, until the next change. */
void dwc_account(struct dwc_engine *e, enum dwc_activity to)
{
	if (e->account.now != to)
		change(&e->account, to, dwc_now_ns());
}

/* It has been `to` since `from_ns`, at the earliest since the last change. */
void dwc_account_from(struct dwc_engine *e, enum dwc_activity to, uint64_t from_ns)
{
	change(&e->account, to, from_ns);
}

/* The element's runs come now. */
void dwc_account_element(struct dwc_engine *e)
{
	e->account.first_run_ns = e->account.ns[DWC_AT_FIRST_RUN];
	e->account.second_run_ns = e->account.ns[DWC_AT_SECOND_RUN];
}

/* The element's runs were in vain. */
void dwc_account_discard(struct dwc_engine *e)
{
	struct dwc_account *a = &e->account;

	change(a, a->now, dwc_now_ns());
	a->ns[DWC_AT_DISCARDED] += a->ns[DWC_AT_FIRST_RUN] - a->first_run_ns + a->ns[DWC_AT_SECOND_RUN] - a->second_run_ns;
	a->ns[DWC_AT_FIRST_RUN] = a->first_run_ns;
	a->ns[DWC_AT_SECOND_RUN] = a->second_run_ns;
}

/* An activity within another one, if that lets it, until dwc_leave(), which gets what this returns. Under `parallel` replica B's thread keeps no
 * account of what it does at the same time as A. */
enum dwc_activity dwc_enter(struct dwc_replica *r, enum dwc_activity what)
{
	struct dwc_account *a = &r->engine->account;
	enum dwc_activity before;

	if (r->at_once)
		return what;
	before = a->now;
	if (may_change(a, what))
		dwc_account(r->engine, what);
	return before;
}

void dwc_leave(struct dwc_replica *r, enum dwc_activity before)
{
	if (!r->at_once)
		dwc_account(r->engine, before);
}
