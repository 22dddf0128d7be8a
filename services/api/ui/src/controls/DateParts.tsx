import { DateInput, type DateInputProps, DateSegment } from "react-aria-components";

/** The parts of a date or a time, which are typed or stepped one by one. */
export function DateParts(props: Omit<DateInputProps, "children">) {
  return <DateInput {...props}>{(segment) => <DateSegment segment={segment} className="focus:bg-tint focus:text-accent data-placeholder:text-soft rounded px-0.5 tabular-nums outline-none" />}</DateInput>;
}
