import { useEffect, useState } from "react";

/** The value as it was when it had not changed for so many milliseconds. It is compared by what it looks like as JSON. */
export function useDebounced<T>(value: T, ms: number): T {
  const text = JSON.stringify(value);
  const [settled, setSettled] = useState({ text, value });
  useEffect(() => {
    if (settled.text === text) return;
    const timer = setTimeout(() => setSettled({ text, value: JSON.parse(text) as T }), ms);
    return () => clearTimeout(timer);
  }, [text, ms, settled.text]);
  return settled.value;
}
