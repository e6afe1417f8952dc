// The error whose message the page shows as it is.

/** An input cannot be used; the message gives the expected one and the received one. */
export class InputError extends Error {}

/** The sentence for any error: those of this page as they are, others with a warning that they are unexpected. */
export function sentence(error) {
  const line = String(error?.message ?? error).split("\n")[0];
  return error instanceof InputError ? line : `This should not happen: ${line}`;
}
