use super::*;

#[test]
fn frames_are_measured_by_their_headers() {
    assert_eq!(frame_length(&[0x81]).unwrap(), None);
    assert_eq!(frame_length(&[0x81, 5]).unwrap(), Some(7));
    assert_eq!(frame_length(&[0x81, 126, 1]).unwrap(), None);
    assert_eq!(frame_length(&[0x81, 126, 1, 0]).unwrap(), Some(260));
    assert_eq!(
        frame_length(&[0x81, 127, 0, 0, 0, 0, 0, 1, 0]).unwrap(),
        None
    );
    assert_eq!(
        frame_length(&[0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]).unwrap(),
        Some(65_546)
    );
    assert!(frame_length(&[0x81, 0x85]).is_err());
}

#[test]
fn tens_of_thousands_of_connections_come_from_several_addresses() {
    let mut endpoint = Endpoint {
        address: "127.0.0.1:80".parse().unwrap(),
        host: String::new(),
        path: String::new(),
        credentials: String::new(),
    };
    let source = |endpoint: &Endpoint, index| endpoint.source(index).map(|it| it.to_string());
    assert_eq!(source(&endpoint, 199), None);
    assert_eq!(source(&endpoint, 200).as_deref(), Some("127.0.0.2"));
    assert_eq!(source(&endpoint, 52_000).as_deref(), Some("127.0.1.5"));
    endpoint.address = "192.0.2.1:80".parse().unwrap();
    assert_eq!(source(&endpoint, 200), None);
}
