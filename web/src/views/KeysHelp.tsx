// Every key, for `?`.
import { useWords } from "../i18n";
import { Dialog } from "../parts/Dialog";

export default function KeysHelp({ onClose, pages }: { onClose: () => void; pages: readonly { key: string; name: string }[] }) {
  const { t } = useWords();
  const groups: [string, [string, string][]][] = [
    [t.keys.everywhere, [...pages.map(({ key, name }): [string, string] => [key, name]), ["/", t.keys.search], ["g n", t.keys.newGrant], ["?", t.keys.help], ["Esc", t.keys.close]]],
    [t.keys.lists, [["j  k", t.keys.next], ["Enter", t.keys.openRow], ["f", t.keys.filter], ["e", t.keys.extend], ["x", t.keys.revoke]]],
    [t.keys.player, [["Space", t.keys.play], ["←  →", t.keys.seek], ["0 … 9", t.keys.tenths], ["<  >", t.keys.speed], ["i", t.keys.idle], ["[  ]", t.keys.command], ["{  }", t.keys.matters], ["/", t.keys.find], ["n  N", t.keys.hit], ["l", t.keys.link], ["s", t.keys.signOff], ["f", t.keys.flag], ["v", t.keys.live], ["m", t.keys.message], ["h", t.keys.hold], ["x", t.keys.cut]]],
  ];
  return (
    <Dialog title={t.keys.title} onClose={onClose} onSubmit={onClose} actions={<button type="submit">{t.close}</button>}>
      {groups.map(([title, keys]) => (
        <section key={title}>
          <h3>{title}</h3>
          <dl className="facts">
            {keys.map(([key, name]) => (
              <div key={key} style={{ display: "contents" }}>
                <dt>
                  {key.split("  ").map((one) => (
                    <kbd key={one} style={{ marginRight: 4 }}>
                      {one}
                    </kbd>
                  ))}
                </dt>
                <dd>{name}</dd>
              </div>
            ))}
          </dl>
        </section>
      ))}
    </Dialog>
  );
}
