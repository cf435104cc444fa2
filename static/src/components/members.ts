/** For who owns everything: the accounts and the invitations, and an end to each. */

import { homeAddress } from "../lib/address";
import { allowReset, endInvitation, listAccounts, listInvitations, setDisabled, type Account, type Invitation, type Me } from "../lib/api";
import { fill, h } from "../lib/dom";

/** `act` shows what went wrong. */
export function members(me: NonNullable<Me["user"]>, act: (done: Promise<unknown>) => void): HTMLElement {
  const accounts = h("ul", { class: "share-list", "aria-label": "Accounts" });
  const invitations = h("ul", { class: "share-list", "aria-label": "Invitations" });
  const address = h("input", { type: "text", id: "reset-address", readonly: true });
  const addressRow = h("label", { class: "field", for: "reset-address", hidden: true }, "For a new password, once and within a day", address);

  const draw = async (): Promise<void> => {
    const [{ people }, invited] = await Promise.all([listAccounts(), listInvitations()]);
    fill(accounts, ...people.map(account));
    fill(invitations, ...invited.invitations.map(invitation));
  };
  const then = (deed: Promise<unknown>): void => act(deed.then(draw));
  const allow = async (login: string): Promise<void> => {
    const { code } = await allowReset(login);
    address.value = `${homeAddress()}#reset=${code}`;
    addressRow.hidden = false;
    address.select();
  };
  const account = ({ id, login, name, disabled }: Account): HTMLElement => {
    const who = h("span", { class: "share-who" }, h("strong", {}, name), h("span", {}, disabled ? `${login}, closed` : login));
    if (id === me.id) return h("li", {}, who);
    const reset = h("button", { type: "button", class: "quiet", "aria-label": `New password for ${name}`, onclick: () => act(allow(login)) }, "New password");
    const verb = disabled ? "Open" : "Close";
    const close = h("button", { type: "button", class: "quiet", "aria-label": `${verb} the account of ${name}`, onclick: () => then(setDisabled(login, !disabled)) }, verb);
    return h("li", {}, who, reset, close);
  };
  const invitation = ({ id, role, expires_at }: Invitation): HTMLElement => {
    const words = `Invitation${role ? ` as ${role} of everything` : ""}, until ${new Date(expires_at).toLocaleDateString()}`;
    const end = h("button", { type: "button", class: "quiet", "aria-label": `End: ${words}`, onclick: () => then(endInvitation(id)) }, "End");
    return h("li", {}, h("span", { class: "share-who" }, words), end);
  };

  const details = h("details", {}, h("summary", {}, "Accounts and invitations"), accounts, invitations, addressRow);
  details.addEventListener("toggle", () => details.open && act(draw()));
  return details;
}
