export function TriggerPage() { return null; }
