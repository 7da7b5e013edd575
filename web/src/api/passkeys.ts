// Passkeys between the API and the browser's authenticator.
import { answer, api, Problem } from "./client";

/** Whether this browser can make passkeys and read what the API asks of it. */
export const hasPasskeys = (): boolean => typeof PublicKeyCredential === "function" && "parseCreationOptionsFromJSON" in PublicKeyCredential;

/** Asks the person's device for a new passkey and adds it. */
export async function addPasskey(name: string): Promise<void> {
  const begun = await answer(api.POST("/api/v1/me/passkeys/begin"));
  const options = PublicKeyCredential.parseCreationOptionsFromJSON(begun.options as unknown as PublicKeyCredentialCreationOptionsJSON);
  const made = await asked(() => navigator.credentials.create({ publicKey: options }));
  await answer(api.POST("/api/v1/me/passkeys", { body: { challenge: begun.challenge, name, credential: made } }));
}

/** The same for the person whom an invite is for, and uses it up. */
export async function makeInvitedPasskey(token: string, name: string): Promise<void> {
  const begun = await answer(api.POST("/api/v1/invite/passkey/begin", { body: { token } }));
  const options = PublicKeyCredential.parseCreationOptionsFromJSON(begun.options as unknown as PublicKeyCredentialCreationOptionsJSON);
  const made = await asked(() => navigator.credentials.create({ publicKey: options }));
  await answer(api.POST("/api/v1/invite/passkey", { body: { token, challenge: begun.challenge, name, credential: made } }));
}

/** Signs in whoever the device says it is. */
export async function signInByPasskey(): Promise<void> {
  const begun = await answer(api.POST("/api/v1/sign-in/passkey/begin"));
  const options = PublicKeyCredential.parseRequestOptionsFromJSON(begun.options as unknown as PublicKeyCredentialRequestOptionsJSON);
  const credential = await asked(() => navigator.credentials.get({ publicKey: options }));
  await answer(api.POST("/api/v1/sign-in/passkey", { body: { challenge: begun.challenge, credential } }));
}

/** What the device answers, as the API takes it. */
async function asked(ask: () => Promise<Credential | null>): Promise<Record<string, never>> {
  let given;
  try {
    given = await ask();
  } catch (cause) {
    // The browser does not tell whether the person said no, had no passkey, or took too long.
    const known = cause instanceof DOMException && cause.name === "InvalidStateError";
    throw new Problem(known ? "passkey_known" : "passkey_none", 0, String(cause), null);
  }
  if (!(given instanceof PublicKeyCredential)) throw new Problem("passkey_none", 0, "", null);
  return given.toJSON() as unknown as Record<string, never>;
}
