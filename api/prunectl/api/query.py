"""The query string of ``GET /v1/jobs`` as a `JobQuery`."""

from __future__ import annotations

from typing import Annotated, get_args

from pydantic import BaseModel, ConfigDict, Field

from prunectl import conditions
from prunectl.errors import InvalidInput, nearest
from prunectl.jobs.model import JobState
from prunectl.jobs.query import MAX_PAGE
from prunectl.jobs.records import JobQuery, MetricFilter
from prunectl.schemas import State, parse_duration

Text = Annotated[str, Field(max_length=1000)]


class ListParameters(BaseModel):
    """Filters are joined with "and". An unknown parameter is refused: a misspelt filter must not list everything."""

    model_config = ConfigDict(extra="forbid")

    state: Annotated[list[Text], Field(default_factory=list, description="one or more states, commas allowed")]
    model: Annotated[Text | None, Field(description="a name or a glob such as `bert-*`")] = None
    sweep: Text | None = None
    tag: Annotated[list[Text], Field(default_factory=list, description="`key=value`, repeatable")]
    since: Annotated[Text | None, Field(description="created within, such as `2d`")] = None
    recent: Annotated[Text | None, Field(description="active, or created within, such as `24h`")] = None
    where: Annotated[
        Text | None, Field(description="`eval_accuracy>0.9 and speedup>=1.3`, on values after pruning")
    ] = None
    sort: Annotated[Text, Field(description="a column or a metric, '-' in front for descending")] = "-created_at"
    limit: Annotated[int, Field(ge=1, le=MAX_PAGE)] = 50
    cursor: Annotated[str | None, Field(max_length=4096)] = None

    def query(self) -> JobQuery:
        """Raises InvalidInput naming the parameter that can't be read."""
        return JobQuery(
            states=_states(self.state),
            model_glob=self.model,
            sweep_id=self.sweep,
            tags=dict(_tag(text) for text in self.tag),
            since_seconds=_seconds("since", self.since),
            active_or_since_seconds=_seconds("recent", self.recent),
            where=parse_where(self.where) if self.where else (),
            sort=self.sort,
            limit=self.limit,
            cursor=self.cursor,
        )


def parse_where(text: str) -> tuple[MetricFilter, ...]:
    """``eval_accuracy>0.9 and speedup>=1.3`` as filters; raises InvalidInput quoting the part that is none."""
    try:
        wanted = conditions.parse(text)
    except ValueError as error:
        hint = "join conditions with 'and': eval_accuracy>0.9 and speedup>=1.3"
        raise InvalidInput(f"where: {error}", field="where", value=text, hint=hint) from None
    return tuple(MetricFilter(each.name, each.op, each.limit) for each in wanted)


def _states(texts: list[str]) -> tuple[JobState, ...]:
    names = [name.strip() for text in texts for name in text.split(",") if name.strip()]
    known = get_args(State)
    for name in names:
        if name not in known:
            near = nearest(name, known)
            raise InvalidInput(
                f"state: {name!r} is not valid; allowed is {', '.join(known)}",
                field="state",
                value=name,
                hint=f"did you mean {near}?" if near else None,
            )
    return tuple(JobState(name) for name in dict.fromkeys(names))


def _tag(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise InvalidInput(f"tag: {text!r} is not key=value", field="tag", value=text, hint="write --tag team=search")
    return key, value


def _seconds(field: str, text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return parse_duration(text)
    except ValueError as error:
        raise InvalidInput(f"{field}: {error}", field=field, value=text) from None
