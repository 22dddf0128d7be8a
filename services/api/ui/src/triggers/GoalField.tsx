import { $api, type Goal } from "../api/client";
import { NumberField, Select, TextField } from "../controls/Field";
import { useSite } from "../sites/useSite";

type GoalConfig = { goal_id?: number; event_name?: string; page_path?: string; scroll_threshold?: number; custom_props?: Record<string, string> };

/** The site's goals in Plausible, as far as they are loaded. */
export function useGoals(): Goal[] {
  const site = useSite();
  const { data } = $api.useQuery("get", "/api/sites/{site_id}/goals", { params: { path: { site_id: site.domain }, query: { limit: 100 } } }, { staleTime: 60_000 });
  return data?.goals ?? [];
}

const described = [
  { id: "event", name: "Another event …", detail: "By its name, without a goal in Plausible." },
  { id: "page", name: "Another page …", detail: "By its path; * stands for any characters." },
];

interface GoalFieldProps {
  value: GoalConfig | undefined;
  onChange: (goal: GoalConfig | undefined) => void;
  /** By the field's path, as `goal.event_name`. */
  errorAt: (field: string) => string | undefined;
}

/** Chooses one of the site's goals, or describes one. */
export function GoalField({ value, onChange, errorAt }: GoalFieldProps) {
  const goals = useGoals();
  const kind = value === undefined ? null : value.goal_id !== undefined ? `goal-${value.goal_id}` : value.page_path !== undefined ? "page" : "event";
  const known = goals.map((goal) => ({ id: `goal-${goal.id}`, name: goal.display_name }));
  if (value?.goal_id !== undefined && goals.length > 0 && !goals.some(({ id }) => id === value.goal_id)) known.unshift({ id: `goal-${value.goal_id}`, name: `Goal ${value.goal_id}, which was deleted` });
  return (
    <>
      <Select
        label="Goal"
        description="One of the site's goals in Plausible, or an event or page of your own."
        error={errorAt("goal") ?? errorAt("goal.goal_id")}
        placeholder="Choose a goal"
        choices={[...known, ...described]}
        value={kind}
        onChange={(id) => onChange(id === "event" ? { event_name: "" } : id === "page" ? { page_path: "" } : { goal_id: Number(id.slice("goal-".length)) })}
      />
      {kind === "event" && (
        <TextField
          label="Name of the event"
          error={errorAt("goal.event_name")}
          value={value?.event_name ?? ""}
          onChange={(event_name) => onChange({ ...value, event_name })}
        />
      )}
      {kind === "page" && (
        <>
          <TextField label="Path of the page" placeholder="/blog/*" error={errorAt("goal.page_path")} value={value?.page_path ?? ""} onChange={(page_path) => onChange({ ...value, page_path })} />
          <NumberField
            label="Read to, in %"
            description="Empty: the page must only be opened."
            error={errorAt("goal.scroll_threshold")}
            minValue={0}
            maxValue={100}
            value={value?.scroll_threshold ?? Number.NaN}
            onChange={(percent) => onChange({ page_path: value?.page_path ?? "", ...(Number.isNaN(percent) ? {} : { scroll_threshold: percent }) })}
          />
        </>
      )}
    </>
  );
}
