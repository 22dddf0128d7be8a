// Times are shown in the time zone of the site that they are about, as on Plausible's dashboard.

const formats = new Map<string, Intl.DateTimeFormat>();

function format(zone: string, options: Intl.DateTimeFormatOptions): Intl.DateTimeFormat {
  const id = zone + JSON.stringify(options);
  let known = formats.get(id);
  if (known === undefined) {
    try {
      known = new Intl.DateTimeFormat("en-GB", { ...options, timeZone: zone });
    } catch {
      known = new Intl.DateTimeFormat("en-GB", { ...options, timeZone: "UTC" }); // a zone that this browser does not know
    }
    formats.set(id, known);
  }
  return known;
}

/** `24 Nov 2026, 15:04:10` */
export function fullTime(at: string | Date, zone: string): string {
  return format(zone, { day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false }).format(new Date(at));
}

/** `24 Nov, 15:04` */
export function shortTime(at: string | Date, zone: string): string {
  return format(zone, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", hour12: false }).format(new Date(at));
}

/** `15:04` */
export function clock(at: string | number | Date, zone: string): string {
  return format(zone, { hour: "2-digit", minute: "2-digit", hour12: false }).format(new Date(at));
}

/** `15:04:10` */
export function clockSeconds(at: string | number | Date, zone: string): string {
  return format(zone, { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false }).format(new Date(at));
}

/** `15:04:10.123` */
export function clockTime(at: string | Date, zone: string): string {
  return format(zone, { hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3, hour12: false }).format(new Date(at));
}

/** `24 Nov` */
export function day(at: string | number | Date, zone: string): string {
  return format(zone, { day: "numeric", month: "short" }).format(new Date(at));
}

/** `GMT+2`, of the moment itself: it changes with summer time. */
export function zoneName(at: string | Date, zone: string): string {
  const parts = format(zone, { timeZoneName: "short" }).formatToParts(new Date(at));
  return parts.find((part) => part.type === "timeZoneName")?.value ?? zone;
}

/** A sentence of the API with its times, which are UTC, in a zone. */
export function withLocalTimes(sentence: string, zone: string): string {
  return sentence.replace(/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z/g, (at) => shortTime(at, zone));
}

const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
const steps: [Intl.RelativeTimeFormatUnit, number][] = [
  ["day", 86_400],
  ["hour", 3_600],
  ["minute", 60],
  ["second", 1],
];

/** `3 minutes ago`, `in 2 hours`, `now` */
export function ago(at: string | Date, now: Date): string {
  const seconds = Math.round((new Date(at).getTime() - now.getTime()) / 1000);
  for (const [unit, length] of steps) {
    if (Math.abs(seconds) >= length) return relative.format(Math.trunc(seconds / length), unit);
  }
  return "now";
}

/** `90 s`, `5 min`, `12 h`, `3 d`; parts that are not whole are not hidden: `1 h 30 min`. */
export function duration(seconds: number): string {
  const parts: string[] = [];
  let rest = Math.round(seconds);
  for (const [name, length] of [["d", 86_400], ["h", 3_600], ["min", 60], ["s", 1]] as const) {
    const whole = Math.floor(rest / length);
    if (whole > 0) parts.push(`${whole} ${name}`);
    rest -= whole * length;
  }
  return parts.slice(0, 2).join(" ") || "0 s";
}

/** `0.4 ms`, `12 ms`, `1.3 s` */
export function milliseconds(ms: number): string {
  if (ms >= 1000) return `${(ms / 1000).toFixed(1)} s`;
  return ms >= 10 ? `${Math.round(ms)} ms` : `${ms.toFixed(1)} ms`;
}

const numbers = new Intl.NumberFormat("en", { maximumFractionDigits: 2 });

export function number(value: number): string {
  return numbers.format(value);
}
