"""What runs by itself.

Belongs here: sensors, schedules, jobs and the rule by which assets are refreshed. Does not belong here: what a dataset
is (`dataset.discovery`) or what became of runs whose process died (`lost_runs`).

Finding datasets costs nothing and runs by default. What starts runs (`refresh`, `nightly`) is stopped until someone
switches it on. A failed stage is not tried again by itself, for its reason is seldom gone a second later and a second
try may cost money: it is tried when the dataset's files or the stage's code change, by `nightly`, or by hand.
"""

import json
import os
from collections.abc import Iterator

import dagster as dg

from hsae_dagster.assets.card_status import outdated_cards
from hsae_dagster.assets.dataset_catalog import labelled_texts, scan
from hsae_dagster.assets.stage import GROUP
from hsae_dagster.dataset.discovery import Dataset, dataset_names, files_fingerprint, files_stamp
from hsae_dagster.errors import DatasetError
from hsae_dagster.partitions import DATASETS, datasets
from hsae_dagster.resources import Project

# Seconds between two looks at data/, and between two decisions of `refresh`.
LOOK_SECONDS = int(os.environ.get("HSAE_LOOK_SECONDS") or 30)

analyse_dataset = dg.define_asset_job(
    "analyse_dataset",
    selection=dg.AssetSelection.groups(GROUP) - dg.AssetSelection.assets("labelled_texts", "hypothesis_card"),
    description="Every stage for one dataset, from its files to its report.",
)


@dg.sensor(minimum_interval_seconds=LOOK_SECONDS, default_status=dg.DefaultSensorStatus.RUNNING)
def dataset_arrivals(context: dg.SensorEvaluationContext, project: Project) -> dg.SensorResult | dg.SkipReason:
    """A new folder under data/ becomes a partition; changed files become a new data version of `labelled_texts`.

    The folder of a dataset that is gone takes its partition along; records, results and report stay, and are found
    again when it returns. Files are read only if their size or time of change differ from the last tick's.

    Raises:
        DatasetError: some dataset cannot be used and there is nothing else to tell: the sentences of all of them, as
            the tick's error. Whatever changed in the others was told by the tick before.
    """
    if not project.data.is_dir():  # a drive that is not mounted retires nobody
        return dg.SkipReason(f"there is no folder {project.data}")
    seen = json.loads(context.cursor or "{}")
    stamps: dict[str, str] = {}

    def fingerprint(dataset: Dataset) -> str:
        stamps[dataset.name] = files_stamp(dataset)
        version, stamp = seen.get(dataset.name, ("", ""))
        return version if stamp == stamps[dataset.name] else files_fingerprint(dataset)

    found, problems = scan(project, fingerprint)
    now = {dataset.name: (version, stamps[dataset.name]) for dataset, version in found}
    for problem in problems:
        context.log.warning(problem)
    changed = [name for name, (version, _) in now.items() if seen.get(name, ("", ""))[0] != version]
    known = set(context.instance.get_dynamic_partitions(DATASETS))
    new = [name for name in now if name not in known]
    gone = sorted(known - set(dataset_names(project.data)))
    cursor = json.dumps({**seen, **now}, sort_keys=True)
    if not (changed or new or gone):
        if problems:
            raise DatasetError(" ".join(problems))
        context.update_cursor(cursor)  # a file written again with the same content is read once, not at every tick
        return dg.SkipReason(f"none of {len(now)} datasets changed")
    requests = [datasets.build_add_request(new)] if new else []
    retirements = [datasets.build_delete_request(gone)] if gone else []
    return dg.SensorResult(
        dynamic_partitions_requests=[*requests, *retirements],
        asset_events=[
            *(
                dg.AssetMaterialization(labelled_texts.key, partition=name, tags={"dagster/data_version": now[name][0]})
                for name in changed
            ),
            # An observation, because a materialization would ask for a refresh.
            *(
                dg.AssetObservation(
                    labelled_texts.key,
                    partition=name,
                    metadata={"state": "retired", "why": f"{project.data / name / 'dataset.yaml'} is gone"},
                )
                for name in gone
            ),
            *outdated_cards(context.instance, project.store, {name: now[name][0] for name in changed}),
        ],
        cursor=cursor,
    )


def refresh_condition(stages: list[str]) -> dg.AutomationCondition[dg.AssetKey]:
    """When a stage of a dataset is asked for: it is missing, its code changed, or what it reads has new content.

    Everything downstream is asked for in the same run, so that a change is one run of its dataset; a stage of that run
    whose inputs have come out equal keeps its result. Content that comes out equal outside of such a run (the same
    data version) asks for nothing. While a run of the dataset is under way, the next one waits for it.

    Unlike `AutomationCondition.eager`, datasets that were there before the rule was first switched on count as missing,
    and a parent made again with the same data version does not count as updated.

    Args:
        stages: names of all stages of a dataset.
    """
    rule = dg.AutomationCondition
    # `updated & new content & not by a run that makes this stage too`, written with `since` because only that operator
    # keeps the time of the update, by which a change that came while a stage ran is told from one its run has seen.
    same, together = ~rule.data_version_changed(), rule.data_version_changed() & rule.executed_with_root_target()
    new_input = rule.any_deps_match(rule.newly_updated().since(same | together))
    unseen = new_input.since(rule.newly_updated()) & new_input.since(rule.newly_requested())
    # Not on the tick that sees another stage's update: of several datasets that were updated since the last tick,
    # `executed_with_root_target` knows only the latest, and whether this stage followed is certain one tick later.
    stages_read = dg.AssetSelection.assets(*stages)
    settling = rule.any_deps_match(rule.newly_updated()).allow(stages_read)
    # In the same run as what it reads. Needs no memory: a parent is not asked for while the dataset is busy.
    alongside = rule.any_deps_match(rule.will_be_requested())
    other_cause = rule.newly_missing() | rule.code_version_changed()
    due = alongside | (unseen & ~settling) | other_cause.since(rule.newly_requested() | rule.newly_updated())
    busy = rule.asset_matches(stages[0], rule.in_progress())
    for stage in stages[1:]:
        busy = busy | rule.asset_matches(stage, rule.in_progress())
    # Nor on the first tick without a run: Dagster tells apart which updates a tick may see, but not which ends of runs,
    # so a run that ends while the tick is evaluated looks ended before the updates of its last stages are seen.
    calm = ~busy & ~(~busy).newly_true()
    unsettled = busy.since(calm).with_label("a run of the dataset is under way, or was at the last look")
    return (due & ~rule.any_deps_missing() & ~busy & ~unsettled).with_label("refresh")


def refreshed(stages: list[dg.AssetsDefinition]) -> list[dg.AssetsDefinition]:
    """The stages with the rule by which they are refreshed."""
    condition = refresh_condition([stage.key.to_user_string() for stage in stages])
    return list(dg.map_asset_specs(lambda spec: spec.replace_attributes(automation_condition=condition), stages))


refresh = dg.AutomationConditionSensorDefinition(
    "refresh",
    target=dg.AssetSelection.groups(GROUP),
    default_status=dg.DefaultSensorStatus.STOPPED,
    minimum_interval_seconds=LOOK_SECONDS,
    # One run per dataset, not one backfill over them: each stands and fails by itself.
    emit_backfills=False,
    description="Starts one run per dataset whose files or code changed, for what is downstream of the change. "
    "Stopped until switched on, for runs may cost money.",
)


@dg.schedule(job=analyse_dataset, cron_schedule="0 2 * * *", default_status=dg.DefaultScheduleStatus.STOPPED)
def nightly(context: dg.ScheduleEvaluationContext, project: Project) -> Iterator[dg.RunRequest]:
    """Every dataset at 02:00 UTC: finished stages are kept, failed ones are tried again. Stopped by default."""
    found, problems = scan(project)
    for problem in problems:
        context.log.warning(problem)
    known = set(context.instance.get_dynamic_partitions(DATASETS))
    for dataset, _ in found:
        if dataset.name in known:
            day = context.scheduled_execution_time.date().isoformat()
            yield dg.RunRequest(run_key=f"{dataset.name} {day}", partition_key=dataset.name)
