// The page's policy forbids to make HTML of texts. React Aria empties its announcements with the empty text, which
// alone is let through here; whatever else tried it would fail.
interface TrustedTypes {
  createPolicy: (name: string, rules: { createHTML: (text: string) => string | null }) => unknown;
}

const { trustedTypes } = window as { trustedTypes?: TrustedTypes };
trustedTypes?.createPolicy("default", { createHTML: (text) => (text === "" ? text : null) });
