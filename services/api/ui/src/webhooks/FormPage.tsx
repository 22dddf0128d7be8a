export function NewWebhookPage() { return null; }
export function EditWebhookPage() { return null; }
